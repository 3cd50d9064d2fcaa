"""Checkpoints that are damaged, hostile, foreign or too new: named, never used, and nobody's code runs."""

import json
import pickle
import re
import shutil

import pytest
import torch
from analysed import SMALL, analyse, leave_run
from conftest import SHORT, refused
from damage import DAMAGES, RunsCode, changed, flipped_weight, half, with_weights

from training import train
from utils.files import UserError
from utils.runs.checkpoints import BadCheckpoint, is_finished, load_run, load_score_network
from utils.runs.run import Run

WORDS, LONGER = ["no_regularizer", *SHORT], ["no_regularizer", "max_epochs=6", *SHORT[1:]]
OF_LEFT = ["no_regularizer", *SMALL, "max_epochs=4"]  # what `left` was begun with
REMEDY = "The run cannot be continued; --from-scratch removes it and starts over"
WHOLE = ". best.ckpt beside it is whole: analyse_experiments.py can use it as it is"
TAKEN = "taking last.ckpt beside it, the weights of the last epoch instead of the best"


@pytest.fixture
def run(clone, training):
    """A copy of a run of four epochs."""
    output = "no_regularizer/output"
    shutil.copytree(clone / "training" / output, training / output)
    return Run("no_regularizer")


@pytest.fixture
def left(training):
    """A run that nobody trained, with both checkpoints; its weights are not those that it would begin with."""
    run = leave_run("no_regularizer")
    for path in (run.best_checkpoint, run.last_checkpoint):
        with_weights(path, lambda state: {name: 0.9 * state[name] for name in state})
    return run


def weights(path):
    return torch.load(path, weights_only=True)["state_dict"]


def holds(network, state):
    return all(torch.equal(value, state[f"network.{name}"]) for name, value in network.state_dict().items())


def test_exact_score_needs_no_run_and_a_run_that_is_not_trained_is_named_with_its_command(training, truth, generator):
    network = load_score_network("analytical")
    x, t = torch.rand(20, 2, 1, generator=generator), torch.rand(20, generator=generator)
    assert not network.training and torch.equal(network(x, t), truth(x, t))
    assert not load_score_network(leave_run("no_regularizer").experiment).training
    text = f"no_regularizer, run2: not trained yet; train it with: {Run('no_regularizer', 'run2').command}"
    with pytest.raises(UserError, match=f"^{re.escape(text)}$"):
        load_score_network("no_regularizer", "run2")


@pytest.mark.parametrize("name", DAMAGES)
def test_bad_checkpoint_is_named_and_runs_no_code(left, training, tmp_path, capsys, name):
    """No training goes on from it; an analysis takes the last one instead of the best, where that is whole."""
    (damage, text), marker, best, last = DAMAGES[name], tmp_path / "marker", left.best_checkpoint, left.last_checkpoint
    whole, kept = last.read_bytes(), weights(last)
    damage(last, marker)
    said = refused(train.main, OF_LEFT, capsys, training.parent)
    assert re.match(f"{re.escape(str(last))}: {text}", said[0]) and said[1:] == [f"{REMEDY}{WHOLE}."]

    last.write_bytes(whole)
    damage(best, marker)
    with pytest.raises(BadCheckpoint, match=f"^{re.escape(str(best))}: {text}"):
        load_run(left)
    loaded = load_run(left, fall_back=True)
    said = capsys.readouterr().err
    assert re.match(f"{re.escape(str(best))}: {text}", said) and said.endswith(f"; {TAKEN}\n") and said.count("\n") == 1
    assert loaded.checkpoint == last and holds(loaded.network, kept)

    damage(last, marker)
    with pytest.raises(UserError) as caught:
        load_run(left, fall_back=True)
    assert [line.partition(": ")[0] for line in str(caught.value).splitlines()] == [str(best), str(last)]
    assert refused(train.main, OF_LEFT, capsys, training.parent)[1:] == [f"{REMEDY}."]
    assert not marker.exists()
    pickle.loads(pickle.dumps(RunsCode(marker)))
    assert marker.exists()  # as it would where pickle is trusted


def test_training_needs_more_than_weights_and_a_configuration_to_go_on(left, training, capsys):
    kept = {"state_dict": weights(left.last_checkpoint), "epochs_done": 4, "callbacks": {}}
    torch.save(kept, left.last_checkpoint)
    said = refused(train.main, OF_LEFT, capsys, training.parent)
    reason = "no training can go on from it: it holds no loops, lr_schedulers, optimizer_states"
    assert said[0] == f"{left.last_checkpoint}: {reason}"
    left.configuration_file.write_bytes(b"\xff")
    said = refused(train.main, OF_LEFT, capsys, training.parent)
    assert str(left.configuration_file) in said[0] and "--from-scratch" in said[1]


def test_missing_best_checkpoint_is_named_and_the_last_one_taken_where_that_is_asked_for(run, capsys):
    run.best_checkpoint.unlink()
    with pytest.raises(BadCheckpoint, match=f"^{re.escape(str(run.best_checkpoint))}: missing$"):
        load_run(run)
    assert load_run(run, fall_back=True).checkpoint == run.last_checkpoint
    assert capsys.readouterr().err == f"{run.best_checkpoint}: missing; {TAKEN}\n"
    assert train.main(WORDS) == 0
    assert "run1: nothing to do, it finished its 4 epochs. Pictures and numbers" in capsys.readouterr().out


def test_run_that_was_moved_goes_on_and_keeps_its_best_checkpoint(run, clone):
    callbacks = torch.load(run.last_checkpoint, weights_only=True)["callbacks"]
    state = next(state for name, state in callbacks.items() if name.startswith("ModelCheckpoint"))
    original = clone / "training" / "no_regularizer" / "output" / "run1" / "checkpoints" / "best.ckpt"
    assert state["dirpath"] == str(original.parent) != str(run.best_checkpoint.parent)
    state |= dict.fromkeys(("best_model_score", "kth_value"), torch.tensor(0.0))  # which no epoch can beat
    changed(run.last_checkpoint, lambda checkpoint: checkpoint | {"callbacks": callbacks})
    both = run.best_checkpoint, original
    before = [path.read_bytes() for path in both]
    assert train.main(LONGER) == 0
    assert is_finished(run) and [path.read_bytes() for path in both] == before

    half(run.last_checkpoint)
    assert not is_finished(run)


def test_run_without_its_last_checkpoint_starts_over_but_not_as_another_one(run, training, capsys):
    before = weights(run.last_checkpoint)
    run.last_checkpoint.unlink()
    said = refused(train.main, [*WORDS, "seed=99"], capsys, training.parent)
    assert "this run was begun with another configuration" in said[0] and said[1].startswith("  seed: ")
    assert train.main(WORDS) == 0
    assert "no last.ckpt is there, so it starts over, towards the same result" in capsys.readouterr().out
    after = weights(run.last_checkpoint)
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert run.curves_file.read_text().count("\n") == 5
    run.last_checkpoint.unlink()
    run.last_checkpoint.symlink_to("nowhere.ckpt")
    said = refused(train.main, WORDS, capsys, training.parent)
    assert said[0].startswith(f"{run.last_checkpoint}: ") and "--from-scratch" in said[1]


@pytest.mark.usefixtures("texts")
def test_analysis_takes_the_last_checkpoint_and_keeps_what_it_cannot_make_anew(left, tmp_path):
    output, words = tmp_path / "output", ("--experiments", "no_regularizer")
    flipped_weight(left.best_checkpoint)
    assert analyse(output, *words) == 0
    record = json.loads((output / "no_regularizer" / "run1" / "metrics.json").read_bytes())
    assert (record["checkpoint"], record["epochs"]) == ("last.ckpt", 4)
    half(left.last_checkpoint)
    assert analyse(output, *words) == 1
    text = "no_regularizer, run1: what this page shows of it is older; it could not be analysed again"
    assert text in (output / "index.html").read_text(encoding="utf-8")
