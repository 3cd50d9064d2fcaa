"""What surrounds the commands plays no part, or is named: variables, the rights and the room to write, files that
others leave; and a command that is stopped ends in a sentence."""

import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
from unittest.mock import Mock

import psutil
import pytest
from analysed import SMALL, WORDS, analyse, leave_run, with_few_points
from conftest import ROOT, SHORT, active_environment, in_bare_shell, make_clone, mounted, snapshot, use_training_folder
from grids import start, until
from trained import differences, train

from training.train import main
from utils.plots.views import Field
from utils.reports.experiment import draw_video
from utils.runs.checkpoints import load_run
from utils.runs.run import Run

SLURM = {"SLURM_NTASKS": "4", "SLURM_JOB_NAME": "x", "SLURM_JOB_ID": "1", "SLURM_JOB_NODELIST": "host"}
SLURM |= dict.fromkeys(("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID"), "3")
TORCHRUN = dict.fromkeys(("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK"), "1") | {"WORLD_SIZE": "2"}
TORCHRUN |= {"LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "1", "MASTER_ADDR": "nowhere", "MASTER_PORT": "1"}
OTHERS = dict.fromkeys(("LSB_JOBID", "JSM_NAMESPACE_LOCAL_RANK", "JSM_NAMESPACE_RANK", "JSM_NAMESPACE_SIZE"), "2")
OTHERS |= {"LSB_DJOB_RANKFILE": "/none", "OMPI_COMM_WORLD_RANK": "1", "PMI_RANK": "1", "KUBERNETES_PORT": "tcp://1"}
LIGHTNING = {"MAX_EPOCHS": "1", "DEVICES": "3", "FAST_DEV_RUN": "1", "PRECISION": "64", "LIMIT_TRAIN_BATCHES": "0"}
LIGHTNING = {f"PL_TRAINER_{name}": value for name, value in LIGHTNING.items()} | {"PL_GLOBAL_SEED": "3"}
TERMINAL = {"TERM": "dumb", "COLUMNS": "3", "NO_COLOR": "1", "TQDM_DISABLE": "1", "PYTHONIOENCODING": "ascii"}
TERMINAL |= {"MPLBACKEND": "module://of.a.notebook"}
PYTHON = dict.fromkeys(("PYTHONHOME", "PYTHONSTARTUP", "GIT_DIR"), "/none")
PYTHON |= {"PYTHONSAFEPATH": "1", "PYTHONOPTIMIZE": "2", "CDPATH": ".:/"}
QUICK = "import pytest, analysed, analyse_experiments as it; analysed.with_few_points(pytest.MonkeyPatch()); it.main()"
NO_REGULARIZER = "--experiments", "no_regularizer"


@pytest.fixture
def left(texts):
    """A run that nobody trained, whose analysis costs little."""
    return leave_run("no_regularizer")


def last_line(capsys):
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said.replace("\r", "\n").splitlines()[-1]


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
    variables = SLURM | TORCHRUN | OTHERS | LIGHTNING | TERMINAL | PYTHON
    variables |= dict.fromkeys(("PYTHONPATH", "MATPLOTLIBRC"), str(elsewhere))
    variables |= {"PATH": f"{elsewhere}:{active_environment()['PATH']}"}
    run_sh, before = str(copy / "training" / "no_regularizer" / "run.sh"), snapshot(elsewhere)
    done = in_bare_shell("bash", run_sh, *SHORT, cwd=elsewhere, **variables)
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


def test_analysis_needs_no_home_no_language_no_display(tmp_path):
    """Nor does a training, as the fixture `clone` shows. The copy's path has a space and a letter beyond ASCII."""
    copy = make_clone(tmp_path / "autre cloné")
    path = os.pathsep.join(str(copy / folder) for folder in ("tests", "tests/helpers"))
    words = sys.executable, "-c", QUICK, *WORDS, "--experiments", "analytical"
    done = in_bare_shell(*words, cwd=copy, PYTHONPATH=path, **TERMINAL)
    assert done.returncode == 0, done.stderr
    assert (copy / "generated_artifacts" / "analytical" / "run1" / "score_field.mp4").exists()
    wrong = in_bare_shell(sys.executable, "analyse_experiments.py", "--experiments", "nö", cwd=copy)
    assert wrong.returncode == 2 and "Traceback" not in wrong.stderr
    assert wrong.stderr.splitlines()[-1].startswith("no experiment is called")


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
    monkeypatch.setattr(fcntl, "flock", Mock(side_effect=OSError(number, "no locks")))
    assert train("max_epochs=1") == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert "output/.run1.lock: no locks: this file system has no locks" in said and "use another one" in said


@pytest.mark.usefixtures("left")
def test_what_file_managers_and_editors_leave_is_passed_over(training, tmp_path, capsys):
    output, others = tmp_path / "out", (".DS_Store", "Thumbs.db", "desktop.ini", "._{}", ".~lock.{}#", "{}~")
    assert analyse(output, *NO_REGULARIZER) == 0
    for path in [*training.rglob("*.*"), *output.rglob("*.*")]:
        for name in others:
            (path.parent / name.format(path.name)).write_bytes(b"\0\5\x16\7")
        (path.parent / ".ipynb_checkpoints").mkdir(exist_ok=True)
        shutil.copy(path, path.parent / ".ipynb_checkpoints" / f"{path.stem}-checkpoint{path.suffix}")
    before = snapshot(tmp_path)
    assert main(["no_regularizer", *SMALL, "max_epochs=4"]) == 0
    capsys.readouterr()
    assert analyse(output, *NO_REGULARIZER) == 0
    assert capsys.readouterr().err == ""
    assert before.keys() == snapshot(tmp_path).keys()


@pytest.mark.privileged
@pytest.mark.usefixtures("left")
def test_clone_that_cannot_be_written_is_analysed_elsewhere(training, tmp_path, capsys, monkeypatch):
    with mounted(tmp_path / "read only", "-o", "bind,ro", str(training.parent)) as frozen:
        use_training_folder(frozen / "training", monkeypatch)
        assert train("--run-name", "other") == 2
        assert last_line(capsys).endswith("Read-only file system")
        assert analyse(frozen / "generated_artifacts", *NO_REGULARIZER) == 2
        assert last_line(capsys).endswith("Read-only file system")
        assert analyse(tmp_path / "out", *NO_REGULARIZER) == 0
    assert all((tmp_path / "out" / name).exists() for name in ("no_regularizer/run1/metrics.json", "index.html"))


@pytest.mark.privileged
@pytest.mark.usefixtures("training")
def test_disk_that_is_full_ends_the_analysis_in_a_line(tmp_path, capsys, monkeypatch):
    with_few_points(monkeypatch)
    with mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=100k", "tmpfs") as small:
        assert analyse(small, "--experiments", "analytical") == 2
        said = last_line(capsys)
        assert str(small) in said and "No space left on device" in said
        assert not [*small.rglob(".*")]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_analysis_that_is_stopped_while_it_samples_ends_in_a_sentence(tmp_path, capsys, monkeypatch, number):
    monkeypatch.setattr("utils.score.samplers.predictor_corrector", lambda *_, **__: os.kill(os.getpid(), number))
    assert analyse(tmp_path / "out", "--experiments", "analytical") == 130
    assert last_line(capsys) == "Stopped; every file that was written is whole. The same command starts again."
    assert not [*tmp_path.rglob(".*")]


def test_analysis_that_is_stopped_while_it_writes_the_video_leaves_no_half_of_one(tmp_path, monkeypatch):
    def interrupted(field, t):
        if t > 0.5:
            until(lambda: [*tmp_path.rglob(".*")])  # it is being written
            os.kill(os.getpid(), signal.SIGINT)
        return original(field, t)

    original = Field.log_density
    monkeypatch.setattr(Field, "log_density", interrupted)
    with pytest.raises(KeyboardInterrupt):
        draw_video(load_run(Run("analytical")), "", tmp_path)
    children = psutil.Process().children()
    until(lambda: all(child.status() == psutil.STATUS_ZOMBIE for child in children if "ffmpeg" in child.name()))
    assert list(tmp_path.iterdir()) == []


COMMANDS = {"analyse_experiments.py --experiments analytical": signal.SIGTERM}
COMMANDS |= dict.fromkeys(("-m training.train no_regularizer", "-m training.sweep --all"), signal.SIGINT)


@pytest.mark.parametrize("seconds", [0.2, 0.6])  # of the processor, however busy it is
@pytest.mark.parametrize(("words", "number"), COMMANDS.items(), ids=COMMANDS)
def test_command_that_is_stopped_in_its_imports_shows_no_traceback(tmp_path, words, number, seconds):
    process = start(make_clone(tmp_path / "copy"), sys.executable, *words.split())
    until(lambda: psutil.Process(process.pid).cpu_times().user > seconds)
    process.send_signal(number)
    said = process.communicate(timeout=60)[1]
    assert process.returncode in (-number, 130) and "Traceback" not in said, said
