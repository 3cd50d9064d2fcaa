"""Runs that are interrupted, killed or out of room, and go on: they end as others do, bit for bit."""

import json
import os
import pkgutil
import random
import re
import shlex
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT, active_environment, make_clone, mounted, use_training_folder
from grids import start
from trained import differences, outcome, steps, stopping_after, train

from training.lightning_module import MONITOR
from utils.runs.checkpoints import read_checkpoint
from utils.runs.curves import epochs_written

KILLED = ROOT / "tests" / "helpers" / "killed.py"
EXPERIMENT, EPOCHS = "consistency_regularizer", 16  # its points, like the data, are other random numbers every epoch
WORDS = (
    f"max_epochs={EPOCHS}",
    "data={training_set_size: 512, validation_set_size: 128, batch_size: 128}",
    "scheduler={type: plateau, patience: 0, factor: 0.5}",  # has a state, and the spaces must survive in the command
    "optimizer.learning_rate=0.05",
    "score_viewer={every_n_epochs: 6, field_every_n_epochs: 1000}",
)


def train_here(runs, name):
    with pytest.MonkeyPatch.context() as patch:
        use_training_folder(runs.parent.parent, patch)
        return train("--run-name", name, *WORDS, experiment=EXPERIMENT)


def assert_goes_on_to_the_same_end(runs, name):
    assert train_here(runs, name) == 0
    assert differences(runs / "whole", runs / name) == []


def epochs_saved(folder):
    last = folder / "checkpoints" / "last.ckpt"
    return read_checkpoint(last)["epochs_done"] if last.exists() else 0  # raises where it is damaged


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folder of the runs, in a copy of the repository. `whole` is there, which was not interrupted."""
    folder = make_clone(tmp_path_factory.mktemp("interrupted") / "copy") / "training" / EXPERIMENT / "output"
    assert train_here(folder, "whole") == 0
    whole = outcome(folder / "whole")
    assert steps(whole["scalars"][MONITOR]) == [*range(EPOCHS)]
    assert [step for step, _ in whole["pictures"]["score_along_the_line"]] == [5, 11]
    assert len({rate for _, rate in whole["scalars"]["learning_rate"]}) > 2
    return folder


@pytest.fixture(scope="module")
def forked(runs):
    """Return a function that trains in a process of its own, with or without a signal; see helpers/killed.py."""
    copy, pipe = runs.parent.parent.parent, subprocess.PIPE
    command, variables = [sys.executable, str(KILLED)], active_environment(PYTHONPATH=str(copy))
    with subprocess.Popen(command, cwd=copy, env=variables, stdin=pipe, stdout=pipe, text=True) as process:

        def train_forked(name, **how):
            how["words"] = [EXPERIMENT, "--run-name", name, *WORDS]
            print(json.dumps(how), file=process.stdin, flush=True)
            return json.loads(process.stdout.readline())

        yield train_forked


def test_run_sh_that_is_interrupted_prints_the_command_that_goes_on_and_so_does_that_one(runs):
    folder = runs / "stopped"
    command, before = shlex.join(["bash", str(runs.parent / "run.sh"), "--run-name", "stopped", *WORDS]), 0
    for number, status in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        with start("/", "bash", "-c", f"exec {command} 2>&1") as process:
            while epochs_written(folder / "curves.csv") <= before + 1:
                assert process.poll() is None, process.stdout.read()
                time.sleep(0.003)
            process.send_signal(number)
            said = process.communicate(timeout=60)[0]
        assert process.returncode == status and "Traceback" not in said, said
        assert (f"continues after {before} epochs" in said) == (before > 0)
        message, command = said.splitlines()[-1].split(" To continue: ")
        assert message == f"{EXPERIMENT}, stopped: stopped after {epochs_saved(folder)} epochs."
        assert before < epochs_saved(folder) < EPOCHS
        before = epochs_saved(folder)
    assert_goes_on_to_the_same_end(runs, "stopped")


MOMENTS = [  # and how many epochs of the run are saved when the signal that comes there has ended it
    ("training.callbacks.AtomicCheckpointIO.save_checkpoint", 2),  # it is decided already that another epoch begins
    ("training.lightning_module.ScoreMatching.on_train_epoch_start", 3),
    ("training.data_module.ToyData.training_epoch", 4),
    ("training.lightning_module.ScoreMatching.training_step", 5),
    ("training.callbacks.RunLogger.add_png", 6),
    ("training.lightning_module.ScoreMatching.validation_step", 7),
    ("training.lightning_module.ScoreMatching.on_train_epoch_end", 9),  # so it is here
]


def test_signal_at_any_moment_of_an_epoch_changes_nothing_but_the_time(runs, monkeypatch):
    """One run is stopped again and again; each time it ends after that epoch."""
    for count, (moment, epochs) in enumerate(MOMENTS):
        with monkeypatch.context() as patch:
            number = (signal.SIGINT, signal.SIGTERM)[count % 2]
            send_signals(patch, moment, number)
            assert train_here(runs, "moments") == 128 + number, moment
        assert epochs_saved(runs / "moments") == epochs, moment
        assert not [*(runs / "moments").rglob(".*")]
    with monkeypatch.context() as patch:  # a second Ctrl-C ends it at once
        send_signals(patch, "training.lightning_module.ScoreMatching.validation_step", signal.SIGINT, signal.SIGINT)
        assert train_here(runs, "moments") == 130
    assert epochs_saved(runs / "moments") == 9
    assert_goes_on_to_the_same_end(runs, "moments")


MOMENTS_WITHOUT_EPOCHS = [
    "training.fitting.fit",  # as while Lightning is imported
    "training.lightning_module.ScoreMatching.configure_optimizers",  # as while data are made
    "tensorboard.summary.writer.event_file_writer._AsyncWriterThread.stop",  # after the last: the file is being closed
]


def send_signals(patch, moment, *numbers):
    """Let this process get signals when a method is called for the first time."""
    owner, name = moment.rsplit(".", 1)
    original, left = getattr(pkgutil.resolve_name(owner), name), [*numbers]

    def with_signals(*arguments, **options):
        while left:
            os.kill(os.getpid(), left.pop(0))
        return original(*arguments, **options)

    patch.setattr(f"{owner}.{name}", with_signals)


@pytest.mark.usefixtures("training")
@pytest.mark.parametrize("moment", MOMENTS_WITHOUT_EPOCHS)
def test_ctrl_c_before_the_first_epoch_and_after_the_last_shows_no_traceback(monkeypatch, capsys, moment):
    send_signals(monkeypatch, moment, signal.SIGINT)
    try:
        assert train("max_epochs=2") == 130
    except (KeyboardInterrupt, SystemExit) as error:
        pytest.fail(f"{error!r} was let through")
    assert capsys.readouterr().err.endswith("Stopped at once; the same command goes on from what is saved.\n")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler  # Lightning would leave it ignored


def test_run_stopped_twice_by_machines_whose_clocks_run_ahead_shows_every_epoch(runs):
    folder = runs / "ahead"
    for ahead, epochs in ((7200, 3), (3600, 7)):
        with stopping_after(epochs):
            assert train_here(runs, "ahead") == 1
        latest = max(folder.glob("events.*"), key=lambda path: path.stat().st_mtime_ns)
        latest.rename(folder / f"events.out.tfevents.{int(time.time()) + ahead:010d}.other_machine.1.0")
    assert_goes_on_to_the_same_end(runs, "ahead")


@pytest.mark.parametrize("seed", [0, 1])
def test_run_that_is_ended_again_and_again_at_random_moments_is_the_uninterrupted_one(runs, forked, seed):
    chance, name = random.Random(seed), f"random{seed}"
    numbers, saved = chance.sample([signal.SIGKILL] * 4 + [signal.SIGINT, signal.SIGTERM], 6), []
    for number, moment in zip(numbers, sorted(chance.uniform(0, EPOCHS) for _ in numbers), strict=True):
        status, said = forked(name, number=number, epochs=int(moment), wait=moment % 1 * 0.1)  # an epoch takes 0.05 s
        assert status in (-number, 128 + number, 130, 0), said  # ended or stopped by it, or too early for it
        assert "Traceback" not in said
        ends = r"stopped after \d+ epochs. To continue: bash .*/run.sh --run|Stopped at once"
        assert status != 128 + number or re.search(ends, said)
        saved.append(epochs_saved(runs / name))
    assert saved == sorted(saved) and len(set(saved)) > 2  # no epoch that was saved is lost, and the moments differ
    assert_goes_on_to_the_same_end(runs, name)


@pytest.mark.privileged
@pytest.mark.parametrize(("size", "saved"), [("100k", 0), ("500k", 3)])  # a checkpoint has 175 kB
def test_full_disk_stops_a_run_in_a_sentence_and_the_same_command_goes_on_when_there_is_room(runs, forked, size, saved):
    with mounted(runs / f"full{size}", "-t", "tmpfs", "-o", f"size={size}", "tmpfs") as folder:
        status, said = forked(folder.name)
        assert status == 2 and "Traceback" not in said
        last_line = said.replace("\r", "\n").splitlines()[-1]
        assert re.match(f"{folder}/[^ ]+: No space left on device. The training stopped", last_line)
        assert epochs_saved(folder) == saved
        assert not [*folder.rglob(".*")]
        subprocess.run(["mount", "-o", "remount,size=50m", str(folder)], check=True)
        assert_goes_on_to_the_same_end(runs, folder.name)
