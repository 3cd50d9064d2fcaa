"""What is wrong on the command line is said in a line that names it, and everything stays as it was."""

import os

import pytest
from conftest import in_bare_shell, refused, snapshot

import analyse_experiments
from training import train
from utils.files import UserError

SPECIFIC, NAME = "no_regularizer/specific_config.yaml", "should be letters, digits, dots, dashes and underscores"


def analyse(words):
    return analyse_experiments.main(["--output-dir", "output", *words])


ERROR, NAMES = "error: argument", ("", "../x", "grid/../x", "a b\n")
COMMAND_LINES = [
    (train.main, [], "run.sh: error: the following arguments are required: experiment"),
    *((train.main, ["no_regularizer", "--run-name", name], f"run name {name!r}: {NAME}") for name in NAMES),
    (train.main, ["no_regularizer", "--run-name", "published"], "--run-name published names the weights that come"),
    (train.main, ["no_regularizer", "--from-scratch", "seed=\udcff"], r"command line: seed=\udcff: the value is not"),
    (train.main, ["no_regulariser"], "no experiment is called 'no_regulariser'; did you mean no_regularizer?"),
    (train.main, ["a\0b"], r"no experiment is called 'a\x00b'; there are: no_regularizer, "),
    (train.main, ["analytical"], "analytical is the exact score: there is nothing to train"),
    (analyse, ["no_regularizer"], "error: unrecognized arguments: no_regularizer"),
    (analyse, ["--experiments", "analytical", "../x"], "no experiment is called '..'; there are: "),
    (analyse, ["--sweep", "../x"], f"sweep '../x': {NAME}"),
    (analyse, ["--sweep", "x"], "no sweep 'x' is here; train it with `python -m training.sweep --config FILE`"),
    (analyse, ["--number-of-samples", "0"], "command line: number_of_samples: should be greater than or equal to 1"),
    (analyse, ["--number-of-samples", "1e3"], f"{ERROR} --number-of-samples: invalid int value: '1e3'"),
    (analyse, ["--seed", "1" + "0" * 30], "command line: seed: should be less than 9223372036854775808, given 1000"),
    (analyse, ["--output-dir", ""], "--output-dir: should be a folder, given nothing"),
    (analyse, ["--output-dir", "training/base_config.yaml/x"], "training/base_config.yaml/x: Not a directory"),
]


@pytest.mark.parametrize(("main", "words", "text"), COMMAND_LINES)
def test_bad_command_line_is_refused(training, capsys, monkeypatch, main, words, text):
    monkeypatch.chdir(training.parent)
    (said,) = refused(main, words, capsys, training.parent)
    assert said.startswith(text) or (text.startswith("error") and text in said)  # after the name of the program


def test_bad_base_file_ends_either_command_and_debug_shows_where(training, capsys, monkeypatch):
    monkeypatch.chdir(training)  # where a marker would be
    path = training / "base_config.yaml"
    path.write_text("seed: !!python/object/apply:os.mkdir [marker]")
    for main, words in ((train.main, ["no_regularizer"]), (analyse, ["--experiments", "analytical"])):
        said = refused(main, words, capsys, training.parent)
        assert said == [f"{path}, line 1: tags (!name) are not read; write a plain value"]
        with pytest.raises(UserError):
            main([*words, "--debug"])


@pytest.mark.parametrize("words", [[], ["--from-scratch"], ["--run-name", "run2"]])
def test_file_where_the_runs_should_be_is_named(training, capsys, words):
    path = training / "no_regularizer" / "output"
    path.write_text("my notes")
    said = refused(train.main, ["no_regularizer", *words], capsys, training.parent)
    assert said == [f"{path}: a file is where a folder should be"]


@pytest.mark.privileged
@pytest.mark.skipif(os.geteuid() == 0, reason="root reads and writes everything")
def test_file_that_may_not_be_read_and_folder_that_may_not_be_written_are_named(training, capsys):
    (training / SPECIFIC).chmod(0)
    said = refused(train.main, ["no_regularizer"], capsys, training / "consistency_regularizer")
    assert said == [f"{training / SPECIFIC}: Permission denied"]
    (training / SPECIFIC).chmod(0o600)
    (training / "no_regularizer").chmod(0o500)
    said = refused(train.main, ["no_regularizer"], capsys, training)
    assert said == [f"{training / 'no_regularizer' / 'output'}: Permission denied"]
    (training / "no_regularizer").chmod(0o700)


def test_same_holds_for_run_sh_which_removes_nothing(clone, tmp_path):
    folder = clone / "training" / "no_regularizer"
    before = snapshot(folder)
    words = ["bash", str(folder / "run.sh"), "--from-scratch", "sed=1"]
    done = in_bare_shell(*words, cwd=tmp_path)
    assert snapshot(folder) == before and not list(tmp_path.iterdir())
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "command line: sed: unknown key (did you mean seed?), given 1\n"
