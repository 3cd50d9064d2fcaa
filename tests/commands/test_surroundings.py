"""Nothing of the surroundings changes a result: other programs' variables, settings and files are left alone."""

import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import pytest
from analysed import analyse, leave_run, with_few_points, without_drawing
from conftest import ROOT, SHORT, in_bare_shell
from trained import differences, train

from training.callbacks import LastCheckpoint
from utils.files import UserError
from utils.plots.style import new_figure, png, styled
from utils.runs.checkpoints import load_run
from utils.runs.run import Run

LAUNCHERS = {  # what SLURM, torchrun, MPI, LSF and Kubernetes set, for the second of several processes
    **{f"SLURM_{name}": "1" for name in ("PROCID", "LOCALID", "JOB_ID")},
    **{"SLURM_NTASKS": "4", "SLURM_JOB_NAME": "train.sh", "SLURM_NODEID": "0", "SLURM_JOB_NODELIST": "host"},
    **{"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "9"},
    **{"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "LSB_JOBID": "1", "JSM_NAMESPACE_RANK": "1"},
    **{"KUBERNETES_PORT": "tcp://127.0.0.1:443", "PL_TRAINER_FAST_DEV_RUN": "1", "PL_TRAINER_LIMIT_TRAIN_BATCHES": "0"},
}
TERMINALS = {"MPLBACKEND": "module://matplotlib_inline.backend_inline", "PYTHONIOENCODING": "ascii", "TERM": "dumb"}
FOREIGN = "raise SystemExit('not from here')"


@pytest.fixture
def polluted(tmp_path):
    """The variables of a shell whose user has modules of the same names, and settings of Python, pip, git and bash."""
    modules, base = tmp_path / "modules", tmp_path / "base"
    site = base / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    for folder in (modules, site):
        (folder / "utils").mkdir(parents=True)
        for path in (folder / "utils" / "__init__.py", folder / "tqdm.py", folder / "sitecustomize.py"):
            path.write_text(FOREIGN if path.name != "sitecustomize.py" else "")
    (tmp_path / "matplotlibrc").write_text("font.size: 40\naxes.facecolor: red\n")
    python = {"PYTHONPATH": str(modules), "PYTHONSAFEPATH": "1", "PYTHONUSERBASE": str(base), "PYTHONOPTIMIZE": "2"}
    others = {"PIP_USER": "1", "PIP_TARGET": str(base), "CDPATH": f".:{tmp_path}", "GIT_DIR": str(tmp_path)}
    return python | others | {"MATPLOTLIBRC": str(tmp_path / "matplotlibrc")}


def test_own_modules_and_pinned_versions_win(polluted):
    python = "import utils.files, tqdm; print(utils.files.__file__, tqdm.__version__)"
    done = in_bare_shell("bash", "-c", f"source ./environment.sh && python -c '{python}'", cwd=ROOT, **polluted)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == [str(ROOT / "utils" / "files.py"), version("tqdm")]


def test_training_is_the_same_under_any_launcher_notebook_or_terminal(clone, polluted, tmp_path):
    copy = shutil.copytree(clone, tmp_path / "copy", ignore=shutil.ignore_patterns("output"))
    run = copy / "training" / "no_regularizer" / "run.sh"
    done = in_bare_shell("bash", str(run), *SHORT, cwd=tmp_path, **LAUNCHERS, **TERMINALS, **polluted)
    assert done.returncode == 0 and "srun" not in done.stdout + done.stderr, done.stderr
    ours, theirs = (folder / "training" / "no_regularizer" / "output" / "run1" for folder in (copy, clone))
    assert (ours / "curves.csv").read_text() == (theirs / "curves.csv").read_text()
    assert sorted(path.name for path in (ours / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]


@pytest.mark.usefixtures("training")
def test_weights_of_another_run_are_not_taken_up(monkeypatch, tmp_path):
    """Lightning's answer to SLURM's signals leaves hpc_ckpt_*.ckpt, and may begin another training from there."""
    first, other = Run("no_regularizer"), Run("no_regularizer", "other")
    assert train("max_epochs=2") == 0
    other.folder.mkdir()
    monkeypatch.chdir(tmp_path)
    for folder in (other.folder, tmp_path):
        shutil.copy(first.last_checkpoint, folder / "hpc_ckpt_1.ckpt")
    with monkeypatch.context() as patch:
        for name, value in LAUNCHERS.items():
            patch.setenv(name, value)
        assert train("--run-name", "other", "max_epochs=2") == 0
    assert differences(first.folder, other.folder) == []
    begins = LastCheckpoint(other, load_run(other).configuration, epochs_done=0)
    elsewhere = SimpleNamespace(current_epoch=2, epochs_done=2)
    with pytest.raises(UserError, match="begins at epoch 2 instead of 0: its weights come from elsewhere"):
        begins.on_train_start(elsewhere, elsewhere)


def test_pictures_do_not_depend_on_a_users_style():
    @styled
    def picture():
        figure = new_figure(2, 2)
        figure.subplots().set_title("title")
        return figure

    usual = png(picture())
    with matplotlib.rc_context({"font.size": 40, "axes.facecolor": "red", "axes.titlepad": 20}):
        assert png(picture()) == usual


def test_files_that_others_leave_are_passed_over(training, tmp_path, monkeypatch):
    with_few_points(monkeypatch)
    without_drawing(monkeypatch)
    run = leave_run("no_regularizer")
    assert analyse(tmp_path, "--experiments", "no_regularizer") == 0
    analysed = tmp_path / "no_regularizer" / "run1"
    for name in (".DS_Store", "._samples.png", "Thumbs.db", "~$metrics.json", ".ipynb_checkpoints/metrics.json"):
        for folder in (tmp_path, analysed, analysed.parent, run.folder, training, training / "no_regularizer"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(b"\0")
    assert analyse(tmp_path, "--experiments", "no_regularizer") == 0


def test_scripts_keep_their_line_ends_in_any_checkout():
    scripts = [*ROOT.glob("*.sh"), *ROOT.glob("training/*/run.sh"), ROOT / ".ci" / "run"]
    if not (ROOT / ".git").exists():
        pytest.skip("this is no clone")
    words = ["git", "check-attr", "eol", "--", *(path.relative_to(ROOT) for path in scripts)]
    lines = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(lines) == len(scripts) > 8 and all(line.endswith("eol: lf") for line in lines)
    assert not any(b"\r" in Path(path).read_bytes() for path in scripts)
