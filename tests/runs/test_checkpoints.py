"""Checkpoints that are damaged, hostile, foreign or too new: named, never used, and nobody's code runs."""

import json
import random
import re
import shutil
import threading
import time

import pytest
import torch
from conftest import SHORT, copy_training, restored_signals, use_training_folder
from test_bad_input import refused
from test_experiments import (
    RunsCode,
    code_in_a_checkpoint,
    code_in_a_pickle,
    cut_short,
    empty,
    half,
    no_weights,
    not_a_dictionary,
    text,
)

import analyse_experiments
from training import train
from training.callbacks import WholeFilesOnly
from utils.reports import experiment as analysis
from utils.runs.loading import FORMAT_VERSION, BadCheckpoint, Run, UserError, load_run, read_checkpoint

WORDS = ("no_regularizer", *SHORT)
OTHERS = ("fokker_planck_regularizer", "consistency_regularizer", "analytical_regression_regularizer")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of four epochs, which tests copy."""
    folder = copy_training(tmp_path_factory.mktemp("trained"))
    with pytest.MonkeyPatch.context() as patch, restored_signals():
        use_training_folder(folder, patch)
        assert train.main(list(WORDS)) == 0
    return folder / "no_regularizer" / "output"


@pytest.fixture
def run(trained, training):
    shutil.copytree(trained, training / "no_regularizer" / "output")
    return Run("no_regularizer")


def changed(path, **others):
    torch.save(torch.load(path, weights_only=True) | others, path)


def flipped(path, where):
    content = bytearray(path.read_bytes())
    content[where] ^= 1
    path.write_bytes(content)


def flipped_weight(path, marker):
    weights = next(iter(torch.load(path)["state_dict"].values())).numpy().tobytes()
    flipped(path, path.read_bytes().index(weights) + len(weights) // 2)


def weights_that_are_none(path, marker):
    changed(path, state_dict={"network.layers.0.weight": RunsCode})


def no_dictionary_of_weights(path, marker):
    changed(path, state_dict=[1, 2])


def other_sizes(path, marker):
    state = torch.load(path, weights_only=True)["state_dict"]
    changed(path, state_dict=state | {"network.layers.2.weight": torch.zeros(8, 8)})


def one_weight_less(path, marker):
    state = torch.load(path, weights_only=True)["state_dict"]
    changed(path, state_dict={key: value for key, value in state.items() if key != "network.layers.2.bias"})


def of_another_run(path, marker):
    settings = torch.load(path, weights_only=True)["hyper_parameters"]
    changed(path, hyper_parameters=settings | {"seed": 77})


DAMAGES = {
    half: "not a readable checkpoint: File is not a zip file",
    cut_short: "not a readable checkpoint",
    empty: "not a readable checkpoint: File is not a zip file",
    text: "not a readable checkpoint: File is not a zip file",
    flipped_weight: "not a readable checkpoint: its record archive/data/",
    code_in_a_checkpoint: "not a readable checkpoint: it holds other things than tensors and plain values",
    code_in_a_pickle: "not a readable checkpoint: File is not a zip file",
    weights_that_are_none: "not a readable checkpoint: it holds other things than tensors and plain values",
    no_weights: "not a checkpoint of a training: it holds no state_dict",
    no_dictionary_of_weights: "not a checkpoint of a training: it holds no state_dict",
    not_a_dictionary: "not a checkpoint of a training: it holds no state_dict",
    other_sizes: "not of the network that its run's config.yaml describes: .*size mismatch for layers.2.weight",
    one_weight_less: "not of the network that its run's config.yaml describes: .*Missing.*layers.2.bias",
    of_another_run: "not of the run that config.yaml describes: seed is 77 in it and 1234 there",
}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_resume_from_a_bad_checkpoint_is_refused_with_what_to_do(run, training, tmp_path, capsys, damage):
    damage(run.last_checkpoint, tmp_path / "marker")
    said = refused(train.main, list(WORDS), capsys, training.parent)
    assert not (tmp_path / "marker").exists()
    assert re.match(f"{re.escape(str(run.last_checkpoint))}: {DAMAGES[damage]}", said[0])
    assert said[1:] == [
        "The run cannot go on; --from-scratch removes it and starts over. "
        "best.ckpt beside it is whole: analyse_experiments.py can use it as it is."
    ]


def test_resume_from_two_bad_checkpoints_promises_nothing(run, training, capsys):
    for path in (run.best_checkpoint, run.last_checkpoint):
        half(path, None)
    said = refused(train.main, list(WORDS), capsys, training.parent)
    assert said[1:] == ["The run cannot go on; --from-scratch removes it and starts over."]


def test_resume_needs_more_than_weights(run, training, capsys):
    state = torch.load(run.last_checkpoint, weights_only=True)
    torch.save({key: state[key] for key in ("state_dict", "epochs_done")}, run.last_checkpoint)
    said = refused(train.main, list(WORDS), capsys, training.parent)
    reason = "no training can go on from it: it holds no callbacks, loops, lr_schedulers, optimizer_states"
    assert said[0] == f"{run.last_checkpoint}: {reason}"


def test_bad_checkpoint_does_not_hinder_a_start_from_scratch(run, signals_restored):
    half(run.last_checkpoint, None)
    assert train.main([*WORDS, "--from-scratch"]) == 0
    assert read_checkpoint(run.last_checkpoint)["epochs_done"] == 4


def test_bad_best_checkpoint_is_named_where_a_run_goes_on(run, capsys, signals_restored):
    half(run.best_checkpoint, None)
    assert train.main(["no_regularizer", "max_epochs=6", *SHORT[1:]]) == 0
    said = capsys.readouterr().err
    assert f"{run.best_checkpoint}: not a readable checkpoint: File is not a zip file; the run goes on" in said


def test_run_that_was_moved_goes_on_and_keeps_its_best_checkpoint(run, trained, signals_restored):
    callbacks = torch.load(run.last_checkpoint, weights_only=True)["callbacks"]
    state = next(state for name, state in callbacks.items() if name.startswith("ModelCheckpoint"))
    assert state["dirpath"] == str(trained / "run1" / "checkpoints") != str(run.best_checkpoint.parent)
    unbeatable = torch.tensor(0.0)
    state |= {"best_model_score": unbeatable, "kth_value": unbeatable}
    changed(run.last_checkpoint, callbacks=callbacks)
    before = run.best_checkpoint.read_bytes(), (trained / "run1" / "checkpoints" / "best.ckpt").read_bytes()
    assert train.main(["no_regularizer", "max_epochs=6", *SHORT[1:]]) == 0
    assert read_checkpoint(run.last_checkpoint)["epochs_done"] == 6
    assert (run.best_checkpoint.read_bytes(), (trained / "run1" / "checkpoints" / "best.ckpt").read_bytes()) == before


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_bad_best_checkpoint_is_named_and_the_last_one_taken_where_that_is_asked_for(run, tmp_path, capsys, damage):
    damage(run.best_checkpoint, tmp_path / "marker")
    reason = DAMAGES[damage].replace("last", "best")
    with pytest.raises(BadCheckpoint, match=f"{re.escape(str(run.best_checkpoint))}: {reason}"):
        load_run(run)
    network = load_run(run, fall_back=True).network
    assert not (tmp_path / "marker").exists()
    said = capsys.readouterr().err
    assert re.match(f"{re.escape(str(run.best_checkpoint))}: {reason}", said) and said.count("\n") == 1
    assert said.endswith("; taking last.ckpt beside it, the weights of the last epoch instead of the best\n")
    last = torch.load(run.last_checkpoint)["state_dict"]
    assert all(torch.equal(value, last[f"network.{name}"]) for name, value in network.state_dict().items())

    damage(run.last_checkpoint, tmp_path / "marker")
    with pytest.raises(UserError) as caught:
        load_run(run, fall_back=True)
    lines = str(caught.value).splitlines()
    assert [line.partition(": ")[0] for line in lines] == [str(run.best_checkpoint), str(run.last_checkpoint)]


def test_missing_best_checkpoint_is_named_and_the_last_one_taken_where_that_is_asked_for(run, capsys):
    run.best_checkpoint.unlink()
    with pytest.raises(BadCheckpoint, match=f"^{re.escape(str(run.best_checkpoint))}: missing$"):
        load_run(run)
    assert load_run(run, fall_back=True).checkpoint == run.last_checkpoint
    said = "missing; taking last.ckpt beside it, the weights of the last epoch instead of the best"
    assert capsys.readouterr().err == f"{run.best_checkpoint}: {said}\n"
    assert train.main(list(WORDS)) == 0
    assert "finished its 4 epochs already. Pictures and numbers" in capsys.readouterr().out

    run.last_checkpoint.unlink()
    with pytest.raises(UserError, match=r"not trained yet; train it with: bash training/no_regularizer/run\.sh$"):
        load_run(run, fall_back=True)


def test_bit_that_is_flipped_is_noticed_or_changes_nothing(run):
    """torch.load alone takes nearly all of them: it compares no check sums."""
    path, before = run.best_checkpoint, torch.load(run.best_checkpoint)["state_dict"]
    content, generator, noticed = path.read_bytes(), random.Random(0), 0
    for _ in range(200):
        flipped(path, generator.randrange(len(content)))
        try:
            state = read_checkpoint(path)["state_dict"]
            assert all(torch.equal(state[name], value) for name, value in before.items())
        except BadCheckpoint:
            noticed += 1
        path.write_bytes(content)
    assert noticed > 100  # the others are padding between the records


def test_run_without_its_last_checkpoint_starts_over_but_not_as_another_one(run, training, capsys):
    before = read_checkpoint(run.last_checkpoint)["state_dict"]
    run.last_checkpoint.unlink()
    said = refused(train.main, [*WORDS, "seed=99"], capsys, training.parent)
    assert "this run was begun with another configuration" in said[0] and said[1].startswith("  seed: ")
    assert train.main(list(WORDS)) == 0
    assert "no last.ckpt is there, so it starts over, towards the same result" in capsys.readouterr().out
    after = read_checkpoint(run.last_checkpoint)["state_dict"]
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert run.curves_file.read_text().count("\n") == 5

    run.last_checkpoint.rename(run.last_checkpoint.with_name("elsewhere.ckpt"))
    run.last_checkpoint.symlink_to("nowhere.ckpt")
    said = refused(train.main, list(WORDS), capsys, training.parent)
    assert said[0].startswith(f"{run.last_checkpoint}: ") and "--from-scratch" in said[1]


@pytest.mark.parametrize("content", [None, b"", b"seed: [", b"\xff"])
def test_run_whose_configuration_cannot_be_read_is_refused_and_says_what_to_do(run, training, capsys, content):
    run.configuration_file.unlink()
    if content is not None:
        run.configuration_file.write_bytes(content)
    said = refused(train.main, list(WORDS), capsys, training.parent)
    assert str(run.configuration_file) in said[0] and "--from-scratch" in said[-1]


@pytest.mark.parametrize("name", ["curves.csv", "checkpoints/best.ckpt"])
def test_folder_in_the_place_of_a_file_is_named(run, capsys, name):
    (run.folder / name).unlink()
    (run.folder / name).mkdir()
    assert train.main(["no_regularizer", "max_epochs=6", *SHORT[1:]]) == 2
    assert f"{run.folder / name}: Is a directory" in capsys.readouterr().err


@pytest.mark.parametrize("version", [FORMAT_VERSION + 1, "next"])
def test_checkpoint_of_a_newer_version_says_so(run, training, capsys, version):
    for path in (run.best_checkpoint, run.last_checkpoint):
        assert read_checkpoint(path)["format_version"] == FORMAT_VERSION
        changed(path, format_version=version)
    text = f"written by a newer version of the code: it has format {version}, and this version of the code reads"
    said = refused(train.main, list(WORDS), capsys, training.parent)
    assert len(said) == 1 and said[0].startswith(f"{run.last_checkpoint}: {text}")
    with pytest.raises(UserError, match=f"best.ckpt: {text}"):
        load_run(run, fall_back=True)


def test_checkpoint_without_a_version_is_one_of_the_first(run):
    for path in (run.best_checkpoint, run.last_checkpoint):
        checkpoint = torch.load(path, weights_only=True)
        del checkpoint["format_version"]
        torch.save(checkpoint, path)
    load_run(run)
    assert train.main(list(WORDS)) == 0


def test_analysis_names_what_it_leaves_out_or_replaces_and_goes_on(run, training, tmp_path, capsys, monkeypatch):
    """Four runs: one with a damaged best checkpoint, one with weights, one with an output that are no numbers."""
    monkeypatch.setattr(analysis, "VIDEO_FRAMES", 2)
    no_numbers, infinite, damaged = map(Run, OTHERS)
    (run.folder / "curves.csv").write_bytes(b"\xff" * 9)
    for other in (no_numbers, infinite, damaged):
        shutil.copytree(run.folder, other.folder)
    for other, factor in ((no_numbers, torch.nan), (infinite, 1e38)):
        state = torch.load(other.best_checkpoint)["state_dict"]
        for layer in ("layers.2.weight", "layers.4.weight"):  # 1e38 squared is too much for float32
            state[f"network.{layer}"] *= factor
        changed(other.best_checkpoint, state_dict=state)
    for path in (damaged.best_checkpoint, damaged.last_checkpoint):
        code_in_a_checkpoint(path, tmp_path / "marker")
    flipped_weight(run.best_checkpoint, None)
    output = tmp_path / "output"
    output.mkdir()
    (output / "learning_curves.png").touch()  # of an earlier analysis
    words = ["--output-dir", str(output), "--number-of-samples", "300", "--time-steps", "10"]
    names = [r.experiment for r in (no_numbers, infinite, damaged, run)]
    assert analyse_experiments.main([*words, "--experiments", *names]) == 1
    said = capsys.readouterr().err.splitlines()
    assert any(line.startswith(f"{run.folder / 'curves.csv'}: line 1 is damaged") for line in said)
    assert not (output / "learning_curves.png").exists()
    said = [line for line in said if ".ckpt" in line or "left out" in line]
    assert said[0].startswith(f"{run.best_checkpoint}: not a readable checkpoint: its record archive/data/")
    assert "taking last.ckpt beside it" in said[0]
    assert said[1] == f"{no_numbers.best_checkpoint}: the weights layers.2.weight are infinite or not a number"
    reason = "left out, since its network's output becomes infinite or not a number"
    assert said[2] == f"{infinite.experiment}, run1: {reason}"
    assert [line.partition(": ")[0] for line in said[3:]] == [
        str(damaged.best_checkpoint),
        str(damaged.last_checkpoint),
    ]
    assert not (tmp_path / "marker").exists()
    assert [path.name for path in output.iterdir() if path.is_dir()] == ["no_regularizer"]
    assert "no_regularizer" in (output / "summary.csv").read_text(encoding="utf-8")
    numbers = output / "no_regularizer" / "run1" / "metrics.json"
    assert json.loads(numbers.read_bytes())["checkpoint"] == "last.ckpt"
    page = (output / "index.html").read_text(encoding="utf-8")
    assert "no_regularizer: best.ckpt is damaged" in page
    code_in_a_checkpoint(run.last_checkpoint, tmp_path / "marker")
    before = numbers.read_bytes()
    assert analyse_experiments.main([*words, "--experiments", "no_regularizer"]) == 1
    assert numbers.read_bytes() == before
    page = (output / "index.html").read_text(encoding="utf-8")
    assert "no_regularizer, run1: what this page shows of it is older" in page


def test_checkpoint_that_is_written_again_and_again_is_whole_whenever_it_is_read(tmp_path):
    """As by an analysis while the training goes on: its tensor always belongs to its number of epochs."""
    path, stop = tmp_path / "last.ckpt", threading.Event()

    def write():
        epochs = 0
        while not stop.is_set():
            epochs += 1
            state = {"state_dict": {"weight": torch.full((200_000,), float(epochs))}, "epochs_done": epochs}
            WholeFilesOnly().save_checkpoint(state, path)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        while not path.exists():
            time.sleep(0.001)
        found = [read_checkpoint(path) for _ in range(60)]
    finally:
        stop.set()
        writer.join()
    assert all(torch.all(one["state_dict"]["weight"] == one["epochs_done"]) for one in found)
    assert len({one["epochs_done"] for one in found}) > 5
