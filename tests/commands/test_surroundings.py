"""What surrounds the commands plays no part: variables of the environment, git's settings, files that others leave."""

import errno
import fcntl
import shutil
import subprocess

import pytest
from analysed import SMALL, analyse, leave_run, with_few_metrics, without_drawing
from conftest import ROOT, SHORT, active_environment, in_bare_shell, make_clone, snapshot
from trained import differences, train

from training.train import main
from utils.runs.run import Run

SLURM = {"SLURM_NTASKS": "4", "SLURM_JOB_NAME": "x", "SLURM_JOB_ID": "1", "SLURM_JOB_NODELIST": "host"}
SLURM |= dict.fromkeys(("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID"), "3")
TORCHRUN = dict.fromkeys(("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK"), "1") | {"WORLD_SIZE": "2"}
TORCHRUN |= {"LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "1", "MASTER_ADDR": "nowhere", "MASTER_PORT": "1"}
LSF = dict.fromkeys(("LSB_JOBID", "JSM_NAMESPACE_LOCAL_RANK", "JSM_NAMESPACE_RANK", "JSM_NAMESPACE_SIZE"), "2")
OTHERS = {"LSB_DJOB_RANKFILE": "/none", "OMPI_COMM_WORLD_RANK": "1", "PMI_RANK": "1", "KUBERNETES_PORT": "tcp://1"}
LIGHTNING = {"MAX_EPOCHS": "1", "DEVICES": "3", "FAST_DEV_RUN": "1", "PRECISION": "64", "LIMIT_TRAIN_BATCHES": "0"}
LIGHTNING = {f"PL_TRAINER_{name}": value for name, value in LIGHTNING.items()} | {"PL_GLOBAL_SEED": "3"}
TERMINAL = {"TERM": "dumb", "COLUMNS": "3", "NO_COLOR": "1", "TQDM_DISABLE": "1", "PYTHONIOENCODING": "ascii"}
PYTHON = {
    "PYTHONSAFEPATH": "1",
    "PYTHONOPTIMIZE": "2",
    "PYTHONHOME": "/none",
    "PYTHONSTARTUP": "/none",
    "CDPATH": ".:/",
}


def test_training_is_the_same_to_the_bit_in_any_surroundings(clone, tmp_path):
    """In every cluster that Lightning looks for, with a person's matplotlibrc, and lines that end as on Windows."""
    copy, elsewhere = make_clone(tmp_path / "copy"), tmp_path / "elsewhere"
    for path in copy.rglob("*"):
        if path.suffix in (".py", ".yaml", ".txt"):
            path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    for name in ("utils", "tqdm"):
        (elsewhere / name).mkdir(parents=True)
        (elsewhere / name / "__init__.py").write_text("1 / 0")
    (elsewhere / "srun").touch(0o755)
    (elsewhere / "matplotlibrc").write_text("font.size: 40\naxes.facecolor: red\nlines.linewidth: 9\n")
    path = f"{elsewhere}:{active_environment()['PATH']}"
    variables = SLURM | TORCHRUN | LSF | OTHERS | LIGHTNING | TERMINAL | PYTHON | {"PYTHONPATH": str(elsewhere)}
    variables |= {"MATPLOTLIBRC": str(elsewhere), "MPLBACKEND": "module://of.a.notebook", "GIT_DIR": "/none"}
    run_sh, before = str(copy / "training" / "no_regularizer" / "run.sh"), snapshot(elsewhere)
    done = in_bare_shell("bash", run_sh, *SHORT, cwd=elsewhere, PATH=path, **variables)
    assert done.returncode == 0 and "finished its 4 epochs" in done.stdout, done.stderr
    assert not any(word in done.stderr for word in ("srun", "SLURM", "Warning"))
    run1 = "training/no_regularizer/output/run1"
    assert differences(clone / run1, copy / run1) == []
    assert snapshot(elsewhere) == before


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
        for name, value in (SLURM | TORCHRUN | LIGHTNING).items():
            patch.setenv(name, value)
        assert train("--run-name", "other", "max_epochs=2") == 0
    assert differences(first.folder, other.folder) == []


def test_scripts_keep_their_line_ends_whatever_git_is_told(tmp_path):
    copy = make_clone(tmp_path / "copy")
    shutil.copy(ROOT / ".gitattributes", copy)
    git = ["git", "-c", "user.name=nobody", "-c", "user.email=nobody@example.org", "-c", "core.autocrlf=true"]
    for words in (("init",), ("add", "."), ("commit", "-m", "all"), ("clone", ".", str(tmp_path / "new"))):
        subprocess.run([*git, *words], cwd=copy, check=True, capture_output=True)
    ends = {path.suffix: b"\r\n" in path.read_bytes() for path in (tmp_path / "new").rglob("*.*") if path.is_file()}
    assert ends[".py"] and not ends[".sh"]


@pytest.mark.usefixtures("training")
@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_file_system_without_locks_is_named(capsys, monkeypatch, number):
    def flock(*_):
        raise OSError(number, "no locks")

    monkeypatch.setattr(fcntl, "flock", flock)
    assert train("max_epochs=1") == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert "output/.run1.lock: no locks: this file system has no locks" in said and "use another one" in said


def test_what_file_managers_and_editors_leave_is_passed_over(training, tmp_path, capsys, monkeypatch):
    with_few_metrics(monkeypatch)
    without_drawing(monkeypatch)
    leave_run("no_regularizer")
    output, words = tmp_path / "out", ("--experiments", "no_regularizer")
    assert analyse(output, *words) == 0
    for path in [*training.rglob("*.*"), *output.rglob("*.*")]:
        for name in (
            ".DS_Store",
            "Thumbs.db",
            "desktop.ini",
            f"._{path.name}",
            f".~lock.{path.name}#",
            f"{path.name}~",
        ):
            (path.parent / name).write_bytes(b"\0\5\x16\7")
        (path.parent / ".ipynb_checkpoints").mkdir(exist_ok=True)
        shutil.copy(path, path.parent / ".ipynb_checkpoints" / f"{path.stem}-checkpoint{path.suffix}")
    before = snapshot(tmp_path)
    assert main(["no_regularizer", *SMALL, "max_epochs=4"]) == 0
    capsys.readouterr()
    assert analyse(output, *words) == 0
    assert capsys.readouterr().err == ""
    assert before.keys() == snapshot(tmp_path).keys()
