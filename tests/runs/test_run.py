"""Runs: what they may be called, where their files are, which there are, and by which code they were made."""

import subprocess

import pytest

from utils.files import UserError
from utils.runs.run import ANALYTICAL, BASE_STUDY, Run, code_version, find_experiments, find_runs

LETTERS = "should be letters, digits, dots, dashes and underscores"


def test_runs_of_a_sweep_are_those_that_were_begun(training):
    found = [Run("no_regularizer", "grid/a"), Run("no_regularizer", "grid/c"), Run("consistency_regularizer", "grid/b")]
    for run in (*found, Run("no_regularizer", "other/d")):
        run.folder.mkdir(parents=True)
        run.configuration_file.touch()
    Run("no_regularizer", "grid/empty").folder.mkdir()
    assert found[0].analysis == "python analyse_experiments.py --experiments no_regularizer/grid/a"
    assert tuple(find_experiments()[:5]) == BASE_STUDY and BASE_STUDY[0] == "no_regularizer"
    assert find_experiments()[5:] == sorted(find_experiments()[5:])
    assert find_runs("grid") == found and find_runs("grid", ["consistency_regularizer"]) == found[2:]
    with pytest.raises(UserError, match=f"^sweep '../x': {LETTERS}$"):
        find_runs("../x")
    with pytest.raises(UserError, match=f"^run name '../x': {LETTERS}$"):
        Run(ANALYTICAL, "../x")


def test_version_is_that_of_the_codes_own_git_or_unknown_with_the_reason(training, monkeypatch):
    """A copy without .git inside another repository, say of a person's home folder, is not of that one's version."""
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(training.parent.parent))
    assert code_version() == f"unknown (fatal: not a git repository: '{training.parent}/.git')"
    who = ("-c", "user.name=nobody", "-c", "user.email=nobody@example.org")
    for words in (("init",), ("add", "."), (*who, "commit", "-m", "all")):
        subprocess.run(["git", "-C", str(training.parent), *words], check=True, capture_output=True)
    monkeypatch.setenv("GIT_DIR", str(training))  # as in git's own hooks
    version = code_version()
    assert len(version) >= 7 and set(version) <= set("0123456789abcdef")
    (training / "base_config.yaml").write_text("seed: 1\n")
    assert code_version() == f"{version}-dirty"
    monkeypatch.setattr("utils.runs.run.ROOT", training)  # a folder inside that repository
    assert code_version().startswith("unknown (fatal: not a git repository")
    monkeypatch.setenv("PATH", "")
    assert code_version() == "unknown (git: No such file or directory)"
