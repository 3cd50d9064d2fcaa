"""Runs: what they may be called, where their files are, which there are, and by which code they were made."""

import subprocess

import pytest

from utils.files import UserError
from utils.runs.run import ANALYTICAL, Run, code_version, find_experiments, find_runs

LETTERS = "should be letters, digits, dots, dashes and underscores"


@pytest.mark.parametrize(
    ("experiment", "name", "text"),
    [
        ("no_regulariser", "run1", "no experiment is called 'no_regulariser'; did you mean no_regularizer?"),
        ("no_regularizer/", "run1", "no experiment is called 'no_regularizer/'; did you mean no_regularizer?"),
        ("../x", "run1", "no experiment is called '../x'; there are: no_regularizer, "),
        ("", "run1", "no experiment is called ''; there are: no_regularizer, "),
        ("a\0b", "run1", r"no experiment is called 'a\x00b'; there are: no_regularizer, "),
        ("x" * 300, "run1", f"no experiment is called '{'x' * 96}...; there are: no_regularizer, "),
        ("no_regularizer", "", f"run name '': {LETTERS}"),
        ("no_regularizer", "..", f"run name '..': {LETTERS}"),
        ("no_regularizer", "../x", f"run name '../x': {LETTERS}"),
        ("no_regularizer", "/x", f"run name '/x': {LETTERS}"),
        ("no_regularizer", "sweep/../x", f"run name 'sweep/../x': {LETTERS}"),
        ("no_regularizer", "a/b/c", f"run name 'a/b/c': {LETTERS}"),
        ("no_regularizer", "a b\n", rf"run name 'a b\n': {LETTERS}"),
        ("no_regularizer", "x" * 300, f"run name '{'x' * 96}...: too long for the name of a folder"),
        ("no_regularizer", "x" * 201, f"run name '{'x' * 96}...: too long for the name of a folder"),
        (ANALYTICAL, "../x", f"run name '../x': {LETTERS}"),
    ],
)
def test_run_that_cannot_be_is_named_with_what_it_could_be(experiment, name, text):
    with pytest.raises(UserError) as caught:
        Run(experiment, name)
    assert str(caught.value).startswith(text) and str(caught.value).isprintable()


def test_files_of_a_run_are_in_its_folder_and_its_lock_is_beside_it(training):
    run, swept = Run("no_regularizer", "short"), Run("no_regularizer", "grid/weight=1,seed=2")
    assert run.folder == training / "no_regularizer" / "output" / "short" and run.sweep is None
    assert swept.folder == training / "no_regularizer" / "output" / "grid" / "weight=1,seed=2" and swept.sweep == "grid"
    for one in (run, swept, Run("no_regularizer", "x" * 200)):
        files = (one.configuration_file, one.best_checkpoint, one.last_checkpoint, one.curves_file, one.metrics_file)
        assert len({*files, one.log_file}) == 6 and all(path.is_relative_to(one.folder) for path in files)
        assert one.lock_file.parent == one.folder.parent
        one.lock_file.parent.mkdir(parents=True, exist_ok=True)
        one.lock_file.touch()  # its name is not too long either
    script = training / "no_regularizer" / "run.sh"
    assert Run("no_regularizer").command == f"bash {script}"
    assert run.command == f"bash {script} --run-name short" and run.title == "no_regularizer, short"


def test_runs_of_a_sweep_are_those_that_were_begun(training):
    for experiment, name in (("consistency_regularizer", "b"), ("no_regularizer", "a"), ("no_regularizer", "c")):
        path = Run(experiment, f"grid/{name}").configuration_file
        path.parent.mkdir(parents=True)
        path.touch()
    (training / "no_regularizer" / "output" / "grid" / "empty").mkdir()
    found = {"no_regularizer": ["grid/a", "grid/c"], "consistency_regularizer": ["grid/b"]}
    assert find_experiments()[0] == "no_regularizer"
    assert find_runs("grid") == [Run(experiment, name) for experiment in found for name in found[experiment]]
    assert find_runs("grid", ["consistency_regularizer"]) == [Run("consistency_regularizer", "grid/b")]
    assert find_runs("other") == []
    with pytest.raises(UserError, match=f"^sweep '../x': {LETTERS}$"):
        find_runs("../x")


def test_version_is_that_of_the_codes_own_git_or_unknown(training, monkeypatch):
    """A copy without .git inside another repository, say of a person's home folder, is not of that one's version."""
    folder = training.parent
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(folder.parent))
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "nobody")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "nobody@example.org")

    def git(*words, at):
        subprocess.run(["git", "-C", str(at), *words], check=True, capture_output=True)

    def commit(at):
        git("init", at=at)
        git("add", ".", at=at)
        git("commit", "-m", "all", at=at)

    assert code_version() == "unknown"
    commit(folder)
    version = code_version()
    assert len(version) >= 7 and set(version) <= set("0123456789abcdef")
    (training / "base_config.yaml").write_text("seed: 1\n")
    assert code_version() == f"{version}-dirty"
    monkeypatch.setattr("utils.runs.run.ROOT", training)  # a folder inside that repository
    assert code_version() == "unknown"
    commit(training)
    assert code_version() not in ("unknown", version)
    monkeypatch.setenv("PATH", "")
    assert code_version() == "unknown"
