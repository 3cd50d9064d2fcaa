"""The README's worked example and its commands, carried out as they stand."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from utils.runs.loading import configure

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
REFERENCE_COMMANDS = re.findall(r"^bash training/(\w+)/run\.sh --run-name reference (.*)$", README, re.MULTILINE)


def test_four_edits_add_a_regularizer(tmp_path):
    section = README.partition("## Adding a regularizer")[2].partition("\n## ")[0]
    definition, union, settings, test, sweep = re.findall(r"```(?:python|yaml)\n(.*?)```", section, re.DOTALL)
    ignored = shutil.ignore_patterns(".git", ".venv", "output", "__pycache__", "generated_artifacts", ".*cache")
    clone = shutil.copytree(ROOT, tmp_path / "clone", ignore=ignored)

    file = clone / "utils" / "regularizers.py"
    code = file.read_text(encoding="utf-8")
    old_union = re.search(r"^Regularizer = .*\n", code, re.MULTILINE).group()
    file.write_text(code.replace(old_union, f"{definition}\n\n{union}"), encoding="utf-8")
    folder = clone / "training" / "conservative_regularizer"
    folder.mkdir(exist_ok=True)  # whoever has made these edits can still run the tests
    shutil.copy(clone / "training" / "no_regularizer" / "run.sh", folder)
    (folder / "specific_config.yaml").write_text(settings, encoding="utf-8")
    (clone / "tests" / "test_conservative.py").write_text(test, encoding="utf-8")

    train = [sys.executable, "-m", "training.train", "conservative_regularizer", "max_epochs=2"]
    result = subprocess.run(train, cwd=clone, capture_output=True, text=True)
    assert result.returncode == 0 and "finished its 2 epochs" in result.stdout, result.stderr
    check = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_conservative.py"]
    result = subprocess.run(check, cwd=clone, capture_output=True, text=True)
    assert "1 passed" in result.stdout, result.stdout
    (clone / "conservative.yaml").write_text(sweep, encoding="utf-8")
    plan = [sys.executable, "-m", "training.sweep", "--config", "conservative.yaml", "--dry-run"]
    result = subprocess.run(plan, cwd=clone, capture_output=True, text=True)
    assert result.stdout.count("conservative_regularizer") == 15 and result.stdout.count("no_regularizer") == 5


@pytest.mark.parametrize(("experiment", "overrides"), REFERENCE_COMMANDS)
def test_the_settings_of_the_reference_are_valid(experiment, overrides):
    configuration = configure(experiment, shlex.split(overrides))
    assert not configuration.data.fresh_noise and configuration.data.number_of_times == 50
    assert configuration.regularizer.points == "uniform"


def test_every_regularizer_of_the_table_is_there_and_has_its_reference_settings():
    """An experiment that somebody adds is in neither."""
    described = set(re.findall(r"^\| `(\w+_regularizer)` \|", README, re.MULTILINE)) - {"no_regularizer"}
    assert {name for name, _ in REFERENCE_COMMANDS} == described
    assert described <= {path.parent.name for path in ROOT.glob("training/*/specific_config.yaml")}


def test_every_run_script_is_the_same():
    scripts = {path.read_text(encoding="utf-8") for path in ROOT.glob("training/*/run.sh")}
    assert len(scripts) == 1
