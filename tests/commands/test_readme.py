"""What README.md, docs/ and examples/ show is carried out as it stands, and every command that is named."""

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from analysed import leave_run
from conftest import ROOT, make_clone

import analyse_experiments
from training import sweep, train
from utils.runs.loading import configure

TEXTS = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *ROOT.glob("docs/*.md"))}
CODE = re.compile(r"^( *)```(\w+)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
SHORT = ("max_epochs=2", "data.training_set_size=512", "score_viewer.every_n_epochs=9")
CARRY_OUT = """import sys, pytest; from training.train import main
sys.exit(main(sys.argv[2:]) or pytest.main(["-q", "-p", "no:cacheprovider", sys.argv[1]]))"""


def blocks(name, kind):
    """Return the code blocks of a language, without the indentation of the list that they may stand in."""
    found = (match for match in CODE.findall(TEXTS[name]) if match[1] == kind)
    return [re.sub(f"^{indent}", "", code, flags=re.MULTILINE) for indent, _, code in found]


def test_three_edits_add_a_regularizer(tmp_path):
    clone, python, text = make_clone(tmp_path / "clone"), blocks("extending.md", "python"), TEXTS["extending.md"]
    regularizer, test = (next(code for code in python if word in code) for word in ("(Regularizer)", "def test_"))
    experiment, file = (re.search(p, text)[1] for p in (r"training/(\w+_regularizer)/", r"`(tests/\w+/test_\w+\.py)`"))
    with (clone / "utils" / "score" / "regularizers.py").open("a", encoding="utf-8") as module:
        module.write(f"\n\n{regularizer}")
    (clone / "training" / experiment).mkdir()
    settings = next(code for code in blocks("extending.md", "yaml") if code.startswith("regularizer:"))
    (clone / "training" / experiment / "specific_config.yaml").write_text(settings, encoding="utf-8")
    (clone / file).write_text(test, encoding="utf-8")
    command = [sys.executable, "-c", CARRY_OUT, file, experiment, *SHORT]
    done = subprocess.run(command, cwd=clone, capture_output=True, text=True)
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout + done.stderr


def test_lines_of_python_in_the_readme_run_after_a_training(training):
    leave_run("no_regularizer")
    exec(blocks("README.md", "python")[0], {})


def test_the_first_look_draws_samples_and_evaluates_a_published_score(tmp_path):
    example, variables = ROOT / "examples" / "first_look.py", {"PYTHONPATH": str(ROOT), "MPLBACKEND": "agg"}
    words = [sys.executable, "-c", "import runpy, sys; runpy.run_path(sys.argv[1])", str(example)]
    done = subprocess.run(words, cwd=tmp_path, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "first_look.png").stat().st_size > 10_000
    path_kl = float(re.search(r"path KL: ([\d.]+) nats", done.stdout)[1])
    learned, exact = map(float, re.search(r"0\.75\]: (\S+) by the learned ODE, (\S+) exactly", done.stdout).groups())
    assert 0 < path_kl < 0.1 and abs(learned - exact) < 1 and "% of them strays" in done.stdout
    assert len(example.read_text().splitlines()) <= 60


@pytest.mark.parametrize("name", TEXTS)
def test_every_command_names_existing_files_and_options(name):
    inline = re.findall(r"`((?:bash|cd|pip|python|source) [^`\n]+)`", TEXTS[name])
    for line in [*inline, *(line for code in blocks(name, "bash") for line in code.splitlines())]:
        for command in line.partition(" #")[0].split("&&"):
            words = [word for word in shlex.split(command) if not re.match(r"[A-Z_]+=", word)]
            match words:
                case ["bash", script, *rest] if script.endswith("/run.sh"):
                    options = train.parse_arguments([Path(script).parent.name, *rest])
                    configure(options.experiment, options.overrides)
                case ["python", "analyse_experiments.py", *rest]:
                    analyse_experiments.parse_arguments(rest)
                case ["python", "-m", "training.sweep", *rest]:
                    sweep.parse_arguments(rest)
                case ["python", "-m", module, *_]:
                    assert importlib.util.find_spec(module)
            paths = words[1:2] if words[:1] in (["bash"], ["source"], ["cd"]) else words[-1:] if "-r" in words else []
            paths += [word for word in words if word.startswith("tests/")]
            assert all((ROOT / path).exists() for path in paths)
