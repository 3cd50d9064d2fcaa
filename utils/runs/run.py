"""Where the files of a run are, and which experiments and runs there are."""

import difflib
import re
import shlex
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from utils.files import UserError

ROOT = Path(__file__).resolve().parent.parent.parent
TRAINING = ROOT / "training"
NAME, TAG = r"\w[\w.-]*", r"\w[\w.,=+-]*"  # of a run or a sweep; of a run within a sweep
SPELLING = "should be letters, digits, dots, dashes and underscores"
ANALYTICAL = "analytical"  # the experiment that needs no training: its network is the exact score
BASELINE = "no_regularizer"
PUBLISHED = "published"  # the name of a run whose weights come with the code
BASE_STUDY = (  # what run_all.sh trains where nothing else is asked for; first in every table, in this order
    BASELINE,
    "analytical_regression_regularizer",
    "fokker_planck_regularizer",
    "consistency_regularizer",
    "consistency_with_analytical_guide_regularizer",
)


def _file(path: str) -> property:
    return property(lambda run: run.folder / path)


@dataclass(frozen=True)
class Run:
    """One training of an experiment and where its files are; those of `analytical` are never trained."""

    experiment: str
    name: str = "run1"

    def __post_init__(self):
        trained = self.experiment != ANALYTICAL
        if trained:
            experiment_folder(self.experiment)
        if not re.fullmatch(rf"{NAME}(/{TAG})?" if trained else TAG, self.name):
            raise UserError(f"run name {self.name!r}: {SPELLING}")

    title = property(lambda run: f"{run.experiment}, {run.name}")
    sweep = property(lambda run: run.name.rpartition("/")[0] or None)  # of a run called sweep/tag
    folder = property(lambda run: TRAINING / run.experiment / "output" / run.name)
    configuration_file = _file("config.yaml")  # the merged configuration that the run was started with
    best_checkpoint = _file("checkpoints/best.ckpt")  # the weights to use: see Configuration.judges_last_weights
    last_checkpoint = _file("checkpoints/last.ckpt")  # the state from which the training goes on
    curves_file = _file("curves.csv")  # the losses of every epoch
    metrics_file = _file("metrics.json")  # the numbers of the trained network, where a sweep evaluated it
    log_file = _file("log.txt")  # what the training printed, where a sweep started it
    lock_file = property(lambda run: run.folder.with_name(f".{run.folder.name}.lock"))  # outlives the folder

    @property
    def command(self) -> str:
        """The command that starts or continues this run, from any folder."""
        option = "" if self.name == "run1" else f" --run-name {self.name}"
        return f"bash {shlex.quote(str(TRAINING / self.experiment / 'run.sh'))}{option}"

    @property
    def analysis(self) -> str:
        """The command that analyses this run; without a name it takes run1 of every experiment."""
        return "python analyse_experiments.py" + f" --experiments {self.experiment}/{self.name}" * (self.name != "run1")


def place(experiment: str) -> tuple[int, str]:
    """Return what puts experiments in the order of every table: the exact score, the base study, others by name."""
    first = (ANALYTICAL, *BASE_STUDY)
    return first.index(experiment) if experiment in first else len(first), experiment


def in_words(experiment: str) -> str:
    """Return the name of an experiment as a text has it, without the ending that most have."""
    return re.sub(r"(?<!\bno)_regularizer", "", experiment).replace("_", " ")


def find_experiments() -> list[str]:
    """Return the names of the experiments under training/, in the order of every table."""
    return sorted((path.parent.name for path in TRAINING.glob("*/specific_config.yaml")), key=place)


def find_runs(sweep: str, experiments: Iterable[str] | None = None) -> list[Run]:
    """Return the runs of a sweep that were begun, of these experiments or of all."""
    if not re.fullmatch(NAME, sweep):
        raise UserError(f"sweep {sweep!r}: {SPELLING}")
    found = []
    for experiment in experiments or find_experiments():
        folder = experiment_folder(experiment) / "output" / sweep
        found += [Run(experiment, f"{sweep}/{path.parent.name}") for path in sorted(folder.glob("*/config.yaml"))]
    return found


def experiment_folder(experiment: str) -> Path:
    """Return the folder of an experiment; raises UserError, with the closest name, where there is none."""
    if experiment not in find_experiments():
        close = difflib.get_close_matches(experiment, find_experiments(), n=1)
        hint = f"did you mean {close[0]}?" if close else f"there are: {', '.join(find_experiments())}"
        raise UserError(f"no experiment is called {experiment!r}; {hint}")
    return TRAINING / experiment


def code_version() -> str:
    """Return the commit of the code, with -dirty where files were changed since, or "unknown" with git's reason."""
    git = ["git", f"--git-dir={ROOT / '.git'}", f"--work-tree={ROOT}"]  # not that of a repository around this one
    try:
        done = subprocess.run([*git, "describe", "--always", "--dirty"], capture_output=True, text=True)
    except OSError as error:
        return f"unknown (git: {error.strerror})"
    return done.stdout.strip() or f"unknown ({done.stderr.strip().splitlines()[0]})"
