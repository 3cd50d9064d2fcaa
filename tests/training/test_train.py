"""The training from run.sh on: what a run leaves, how it is continued, refused or started over."""

import math
import os
import re

import pytest
import torch
import yaml
from conftest import SHORT, snapshot
from trained import differences, equal, events, steps, train, values

from training.data_module import ToyData
from training.lightning_module import MONITOR
from utils.files import locked
from utils.runs.checkpoints import load_run
from utils.runs.curves import read_curves
from utils.runs.loading import configure
from utils.runs.run import Run, find_experiments

LOSSES = {f"{loss}/{phase}" for loss in ("score_matching_loss", "total_loss") for phase in ("training", "validation")}
SCALARS = LOSSES | {"excess_loss/validation", "path_kl_in_nats/validation", "learning_rate"}


def test_run_holds_what_was_promised_with_scalars_once_an_epoch_and_nothing_else(clone):
    run1 = clone / "training" / "no_regularizer" / "output" / "run1"
    files = sorted(path.relative_to(run1).as_posix() for path in run1.rglob("*") if path.is_file())
    assert files[:4] == ["checkpoints/best.ckpt", "checkpoints/last.ckpt", "config.yaml", "curves.csv"]
    assert ["events.out.tfevents" in name for name in files[4:]] == [True]
    configuration, written = configure("no_regularizer", SHORT), (run1 / "config.yaml").read_bytes()
    assert (run1.parent.parent / "config.yaml").read_bytes() == written
    assert yaml.safe_load(written) == configuration.as_dict()
    untrained = configuration.build_network().state_dict()
    for name in ("best.ckpt", "last.ckpt"):
        checkpoint = torch.load(run1 / "checkpoints" / name, weights_only=True)  # only tensors and plain values
        assert checkpoint["hyper_parameters"] == configuration.as_dict()
        assert checkpoint["state_dict"].keys() == {f"network.{key}" for key in untrained}
        assert not any(torch.equal(checkpoint["state_dict"][f"network.{key}"], untrained[key]) for key in untrained)
    scalars, _ = events(run1)
    assert {tag: steps(scalars[tag]) for tag in SCALARS} == {tag: [0, 1, 2, 3] for tag in SCALARS}
    assert all(math.isfinite(value) for series in scalars.values() for _, value in series)
    assert values(scalars["learning_rate"]) == pytest.approx([0.01] * 4)


def test_run_from_its_beginning_to_its_end(training, capsys):
    """Started, refused with another configuration, given more epochs, started over; another run beside it."""
    output, constant = training / "no_regularizer" / "output", "scheduler.type=constant"
    assert train("max_epochs=2", constant) == 0
    before = snapshot(training)

    capsys.readouterr()
    assert train("max_epochs=2", "optimizer.learning_rate=0.5", "scheduler.type=cosine") == 2
    said = capsys.readouterr().err
    texts = "optimizer.learning_rate: 0.01 in the run, 0.5 now", "scheduler.type: constant in the run, cosine now"
    assert all(text in said for text in (*texts, "--run-name", "--from-scratch"))
    assert train("max_epochs=1", constant) == 2  # fewer epochs cannot be had from what there is
    assert train("max_epochs=3", constant, "seed=1") == 2
    assert snapshot(training) == before

    assert train("max_epochs=5", constant) == 0
    assert "continues after 2 epochs" in capsys.readouterr().out
    assert yaml.safe_load((output / "run1" / "config.yaml").read_text())["max_epochs"] == 5
    scalars, _ = events(output / "run1")
    assert {tag: steps(scalars[tag]) for tag in SCALARS} == {tag: [*range(5)] for tag in SCALARS}

    assert train("max_epochs=5", constant, "--run-name", "straight") == 0  # continued or not
    assert differences(output / "run1", output / "straight") == []

    beside = snapshot(output / "straight")
    assert train("max_epochs=1", "--from-scratch", "optimizer.learning_rate=0.02") == 0
    scalars, _ = events(output / "run1")
    assert steps(scalars[MONITOR]) == [0]
    assert values(scalars["learning_rate"]) == pytest.approx([0.02])
    assert len(list((output / "run1").glob("*tfevents*"))) == 1
    assert snapshot(output / "straight") == beside


def test_early_stopping_ends_a_run_with_its_best_checkpoint_and_the_same_command_leaves_it_alone(training, capsys):
    words = "max_epochs=30", "early_stopping_patience=2", "optimizer.learning_rate=0.3", "scheduler.type=constant"
    run = Run("no_regularizer")
    assert train(*words) == 0
    said = capsys.readouterr().out
    validation = values(events(run.folder)[0][MONITOR])
    best = validation.index(min(validation))
    assert len(validation) == best + 3 < 30 and torch.load(run.best_checkpoint)["epochs_done"] == best + 1
    how = f"stopped early, after {best + 3} epochs, the last 2 of them without a better validation loss. "
    then = "Pictures and numbers: python analyse_experiments.py\n"
    assert said.endswith(f"run1: {how}The run is in {run.folder}\n{then}")
    before = snapshot(training)
    assert train(*words) == 0
    said = capsys.readouterr()
    assert (said.out, said.err) == (f"{run.title}: nothing to do, it {how}{then}", "")
    assert snapshot(training) == before


@pytest.mark.usefixtures("training")
def test_last_weights_are_those_to_use_where_the_rate_falls_to_zero_or_weights_are_averaged():
    """The average is taken after each mini-batch, here one an epoch, and goes on where the training does."""
    falling, averaged = Run("no_regularizer", "falling"), Run("no_regularizer", "averaged")
    assert train("--run-name", "falling", "max_epochs=4", "scheduler.type=cosine", "optimizer.learning_rate=0.3") == 0
    best, last = (torch.load(path) for path in (falling.best_checkpoint, falling.last_checkpoint))
    assert best["epochs_done"] == 4 and equal(best["state_dict"], last["state_dict"])
    average, constant = None, ("scheduler.type=constant", "optimizer.ema_decay=0.75")
    for epochs in (1, 2, 3):
        assert train("--run-name", "averaged", f"max_epochs={epochs}", *constant) == 0
        state = torch.load(averaged.last_checkpoint)["state_dict"]
        weights = torch.cat([value.flatten() for key, value in state.items() if key.startswith("network.")])
        average = weights if average is None else 0.75 * average + 0.25 * weights
    used = torch.cat([value.flatten() for value in load_run(averaged).network.state_dict().values()])
    assert torch.allclose(used, average, rtol=1e-5, atol=1e-7) and not torch.allclose(used, weights, rtol=1e-5)
    validated = values(events(averaged.folder)[0][MONITOR])
    data = ToyData(configuration := load_run(averaged).configuration).validation_set()
    loss = (load_run(averaged).network(data.x, data.t) - data.target).square().mean().item()
    assert configuration.judges_last_weights and validated[-1] == pytest.approx(loss, rel=1e-5)


@pytest.mark.usefixtures("training")
def test_from_scratch_empties_a_folder_that_is_a_link_and_nothing_beyond_it(tmp_path):
    run, disk, other = Run("no_regularizer"), tmp_path / "disk", tmp_path / "other"
    for folder in (run.folder.parent, disk / "old", other / "kept"):
        folder.mkdir(parents=True)
    run.folder.symlink_to(disk)
    assert train("max_epochs=2") == 0
    (disk / "old" / "link").symlink_to(other)
    (disk / "link").symlink_to(other)
    assert train("max_epochs=1", "--from-scratch") == 0
    assert run.folder.is_symlink() and (other / "kept").exists()
    assert not (disk / "old").exists() and not (disk / "link").is_symlink()
    assert steps(events(disk)[0][MONITOR]) == [0]


@pytest.mark.usefixtures("training")
def test_second_process_in_a_run_is_refused_and_names_the_first(capsys):
    run = Run("no_regularizer")
    for options in ([], ["--from-scratch"]):
        with locked(run.lock_file):
            assert train("max_epochs=1", *options) == 2
        said = f"{run.folder}: process {os.getpid()} on .* is training it; wait for it or stop it, or choose another"
        assert re.fullmatch(f"{said} --run-name\n", capsys.readouterr().err)
        assert not run.folder.exists()
    assert run.lock_file.exists()  # stale from here on: it is in nobody's way
    assert train("max_epochs=1") == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("experiment", find_experiments())
def test_training_on_a_gpu_has_the_losses_of_one_on_the_processor(training, experiment):
    losses = []
    for accelerator in ("cpu", "cuda"):
        name = f"--run-name={accelerator}"
        assert train(name, f"accelerator={accelerator}", "max_epochs=2", experiment=experiment) == 0
        losses.append(read_curves(Run(experiment, accelerator).curves_file)[MONITOR])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)  # float32, in another order
