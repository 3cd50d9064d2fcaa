"""Runs that are interrupted, killed or out of room, and go on: they end as others do, bit for bit."""

import json
import os
import pkgutil
import re
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import (
    ROOT,
    active_environment,
    copy_training,
    in_shell,
    make_clone,
    mounted,
    restored_signals,
    use_training_folder,
)
from tensorboard.summary.writer.record_writer import RecordWriter
from trained import equal, events, outcome, steps, train

from training.callbacks import SAVE_EVERY_N_EPOCHS, WholeFilesOnly
from training.lightning_module import MONITOR, ScoreMatching
from training.train import main

LONG = (
    "max_epochs=60",
    "data.training_set_size=2048",
    "scheduler={type: plateau, patience: 1, factor: 0.5}",  # has a state, and the spaces must survive in the command
    "optimizer.learning_rate=0.01",
    "score_viewer.every_n_epochs=25",
    "score_viewer.field_every_n_epochs=1000",
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Where the long runs are: their folder in a copy of the repository."""
    return make_clone(tmp_path_factory.mktemp("long") / "copy") / "training" / "no_regularizer" / "output"


def train_long(runs, name):
    with pytest.MonkeyPatch.context() as patch:
        use_training_folder(runs.parent.parent, patch)
        return main(["no_regularizer", "--run-name", name, *LONG])


@pytest.fixture(scope="module")
def uninterrupted(runs):
    with restored_signals():
        assert train_long(runs, "whole") == 0
    expected = outcome(runs / "whole")
    assert steps(expected["scalars"][MONITOR]) == [*range(60)]
    assert [step for step, _ in expected["pictures"]["score_along_the_line"]] == [24, 49]
    return expected


def interrupt(runs, name, number, until, wait=0.0):
    """Start the long run, and send it a signal once a file is there; return status, output and the time it took."""
    command = ["bash", str(runs.parent / "run.sh"), "--run-name", name, *LONG]
    with subprocess.Popen(
        command, env=active_environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        while not (runs / name / "checkpoints" / until).exists():
            assert process.poll() is None, process.stdout.read()
            time.sleep(0.01)
        time.sleep(wait)
        began = time.monotonic()
        process.send_signal(number)
        said = process.communicate(timeout=60)[0]
        return process.returncode, said, time.monotonic() - began


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_run_and_the_command_it_prints_end_in_the_same_weights(runs, uninterrupted, number, status):
    name = f"stopped_with_{status}"
    returned, said, seconds = interrupt(runs, name, number, until="best.ckpt")
    assert returned == status
    assert "Traceback" not in said
    assert (
        seconds < 10
    )  # 0.5 on an idle machine, but this one may be busy; the epochs below say that it stopped at once
    message, command = said.splitlines()[-1].split(" To continue: ")
    epochs = int(message.removeprefix(f"no_regularizer, {name}: stopped after ").removesuffix(" epochs."))
    assert 1 <= epochs < 60
    done = in_shell("bash", "-c", command, cwd=runs.parent.parent.parent)
    assert done.returncode == 0, done.stderr
    assert f"continues after {epochs} epochs" in done.stdout
    result = outcome(runs / name)
    assert [key for key in uninterrupted if not equal(result[key], uninterrupted[key])] == []


@pytest.mark.usefixtures("signals_restored")
def test_killed_run_repeats_exactly_what_was_lost(runs, uninterrupted, capsys):
    returned, _, _ = interrupt(runs, "killed", signal.SIGKILL, until="last.ckpt", wait=0.1)  # so some epochs are lost
    assert returned == -signal.SIGKILL
    assert train_long(runs, "killed") == 0
    assert "continues after " in capsys.readouterr().out
    result = outcome(runs / "killed")
    assert [key for key in uninterrupted if not equal(result[key], uninterrupted[key])] == []
    assert not [path for path in (runs / "killed").rglob("*") if path.name.startswith(".")]


WORDS = ("max_epochs=8", "score_viewer={every_n_epochs: 2}", "optimizer.learning_rate=0.05")


@pytest.fixture(scope="module")
def short_whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch, restored_signals():
        use_training_folder(copy_training(folder), patch)
        assert train(*WORDS) == 0
    return outcome(folder / "training" / "no_regularizer" / "output" / "run1")


@pytest.mark.usefixtures("signals_restored")
@pytest.mark.parametrize(
    "moment",
    [
        "lightning_module.ScoreMatching.on_train_epoch_start",
        "data_module.ToyData.training_epoch",
        "lightning_module.ScoreMatching.training_step",
        "lightning_module.ScoreMatching.validation_step",
        "lightning_module.ScoreMatching.on_train_epoch_end",
        "callbacks.ScoreLine.draw",
        "callbacks.WholeFilesOnly.save_checkpoint",
    ],
)
def test_signal_at_any_moment_changes_nothing_but_the_time(short_whole, training, monkeypatch, moment):
    owner, name = f"training.{moment}".rsplit(".", 1)
    original, calls = getattr(pkgutil.resolve_name(owner), name), []

    def raises_a_signal(*arguments, **options):
        calls.append(arguments)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(f"{owner}.{name}", raises_a_signal)
        assert train(*WORDS) == 143
    assert train(*WORDS) == 0
    stopped = outcome(training / "no_regularizer" / "output" / "run1")
    assert [key for key in short_whole if not equal(stopped[key], short_whole[key])] == []


@pytest.mark.usefixtures("signals_restored")
def test_run_stopped_twice_by_machines_whose_clocks_run_ahead_shows_every_epoch(short_whole, training, monkeypatch):
    folder, on_epoch_end = training / "no_regularizer" / "output" / "run1", ScoreMatching.on_train_epoch_end

    def stop_after_some_epochs(module):
        on_epoch_end(module)
        if module.epochs_done in (3, 6):
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(ScoreMatching, "on_train_epoch_end", stop_after_some_epochs)
    for ahead in (7200, 3600):
        assert train(*WORDS) == 143
        latest = max(folder.glob("events.*"), key=lambda path: path.stat().st_mtime_ns)
        latest.rename(folder / f"events.out.tfevents.{int(time.time()) + ahead:010d}.other_machine.1.0")
    assert train(*WORDS) == 0
    result = outcome(folder)
    assert [key for key in short_whole if not equal(result[key], short_whole[key])] == []


@pytest.mark.usefixtures("signals_restored")
def test_what_a_checkpoint_does_not_repeat_is_on_disk(training, monkeypatch):
    """Or a run that is killed then has a gap in its curves. A thread writes them, and the disk may be slow."""
    save, write, found = WholeFilesOnly.save_checkpoint, RecordWriter.write, []

    def look_and_save(self, checkpoint, path, storage_options=None):
        if Path(path).name == "last.ckpt":
            found.append((checkpoint["epochs_done"], len(events(Path(path).parent.parent)[0]["learning_rate"])))
        save(self, checkpoint, path, storage_options)

    def write_slowly(self, data):
        time.sleep(0.01)
        write(self, data)

    monkeypatch.setattr(WholeFilesOnly, "save_checkpoint", look_and_save)
    monkeypatch.setattr(RecordWriter, "write", write_slowly)
    assert train(f"max_epochs={SAVE_EVERY_N_EPOCHS + 2}") == 0
    assert found == [(epochs, epochs) for epochs in (SAVE_EVERY_N_EPOCHS, SAVE_EVERY_N_EPOCHS + 2)]


def test_ctrl_c_before_the_first_epoch_shows_no_traceback(training, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("training.fitting.fit", interrupted)  # as while Lightning is imported, or data are made
    try:
        assert train("max_epochs=2") == 130
    except KeyboardInterrupt:
        pytest.fail("KeyboardInterrupt was let through")


# --- at any moment

KILLS, STOPS = 20, (signal.SIGINT, signal.SIGTERM) * 4
COMMANDS = [
    [experiment, *words]
    for experiment, *words in (
        ("no_regularizer", "scheduler.patience=1", "score_viewer={every_n_epochs: 12, field_every_n_epochs: 1000}"),
        ("consistency_regularizer", "scheduler.type=cosine", "score_viewer.every_n_epochs=1000"),
    )
]
FEW = ("max_epochs=30", "data.training_set_size=1024", "data.validation_set_size=128", "optimizer.learning_rate=0.01")


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """What came of runs that were killed or stopped at random moments and started again, by the run's folder."""
    clone = make_clone(tmp_path_factory.mktemp("killed") / "copy")
    commands = json.dumps([[*command, *FEW] for command in COMMANDS])
    numbers = [str(int(number)) for number in (*[signal.SIGKILL] * KILLS, *STOPS)]
    script = [sys.executable, str(ROOT / "tests" / "killed.py"), commands, *numbers]
    done = subprocess.run(
        script, cwd=clone, env=active_environment(PYTHONPATH=str(clone)), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def whole(folder):
    return outcome(folder.parent / "whole")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_run_that_ends_at_a_random_moment_and_goes_on_is_the_uninterrupted_one(killed, number):
    chosen = {Path(name): found for name, found in killed["results"].items() if found["signal"] == number}
    assert len(chosen) == (KILLS if number == signal.SIGKILL else STOPS.count(number))
    assert {found["again"] for found in chosen.values()} == {0}, killed["log"]
    assert len({found["epochs"] for found in killed["results"].values()}) > 1  # the moments differ
    for folder, found in chosen.items():
        expected, result = whole(folder), outcome(folder)
        assert [key for key in expected if not equal(result[key], expected[key])] == [], found
        rows = (folder / "curves.csv").read_text()
        assert rows == (folder.parent / "whole" / "curves.csv").read_text(), found


def test_stopping_takes_less_than_two_seconds_and_names_the_command(killed):
    stopped = [found for found in killed["results"].values() if found["status"] in (130, 143)]
    assert len(stopped) >= len(STOPS) // 2  # the others had ended before, or not begun
    assert statistics.median(found["seconds"] for found in stopped) < 2  # the median: this machine may be busy
    last_words = re.findall(r"stopped after \d+ epochs. To continue: bash training/\w+/run.sh .*", killed["log"])
    assert len(last_words) >= sum(found["epochs"] > 0 for found in stopped) > 0
    assert "Traceback" not in killed["log"]


# --- without room


@pytest.mark.privileged
@pytest.mark.parametrize("size", ["100k", "600k"])
def test_full_disk_stops_a_run_in_a_sentence_and_the_same_command_goes_on_when_there_is_room(
    runs, uninterrupted, tmp_path_factory, size
):
    clone = make_clone(tmp_path_factory.mktemp("full") / "copy")
    output = clone / "training" / "no_regularizer" / "output"
    command = ["bash", str(output.parent / "run.sh"), "--run-name", "full", *LONG]
    with mounted(output, "-t", "tmpfs", "-o", f"size={size}", "tmpfs"):
        stopped = in_shell(*command, cwd=clone)
        assert stopped.returncode == 2
        last_line = stopped.stderr.replace("\r", "\n").splitlines()[-1]
        assert re.match(f"{output / 'full'}/[^ ]+: No space left on device. The training stopped", last_line)
        assert "Traceback" not in stopped.stderr
        subprocess.run(["mount", "-o", "remount,size=50m", str(output)], check=True)
        assert in_shell(*command, cwd=clone).returncode == 0
        result = outcome(output / "full")
    assert [key for key in uninterrupted if not equal(result[key], uninterrupted[key])] == []
