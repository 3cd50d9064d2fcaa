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
MAX_NAME = 200  # bytes of a run's name; file systems take 255, and a lock file adds to it
ANALYTICAL = "analytical"  # the experiment that needs no training: its network is the exact score
BASELINE = "no_regularizer"


@dataclass(frozen=True)
class Run:
    """One training of an experiment and where its files are; those of `analytical` are never trained."""

    experiment: str
    name: str = "run1"

    def __post_init__(self):
        if self.experiment != ANALYTICAL:
            experiment_folder(self.experiment)
        if not re.fullmatch(rf"{NAME}(/{TAG})?" if self.experiment != ANALYTICAL else TAG, self.name):
            text = "should be letters, digits, dots, dashes and underscores"
            raise UserError(f"run name {_shown(self.name)}: {text}")
        if any(len(part.encode()) > MAX_NAME for part in self.name.split("/")):
            raise UserError(f"run name {_shown(self.name)}: too long for the name of a folder")

    @property
    def sweep(self) -> str | None:
        """The sweep that the run belongs to; its name is then sweep/tag, and its folder is in that of the sweep."""
        return self.name.rpartition("/")[0] or None

    @property
    def folder(self) -> Path:
        """The folder of everything that the run writes."""
        return TRAINING / self.experiment / "output" / self.name

    @property
    def configuration_file(self) -> Path:
        """The merged configuration that the run was started with."""
        return self.folder / "config.yaml"

    @property
    def best_checkpoint(self) -> Path:
        """The weights with the lowest validation score-matching loss."""
        return self.folder / "checkpoints" / "best.ckpt"

    @property
    def last_checkpoint(self) -> Path:
        """The state from which the training goes on."""
        return self.folder / "checkpoints" / "last.ckpt"

    @property
    def curves_file(self) -> Path:
        """The losses of every epoch."""
        return self.folder / "curves.csv"

    @property
    def metrics_file(self) -> Path:
        """The numbers of the trained network, where a sweep evaluated it."""
        return self.folder / "metrics.json"

    @property
    def log_file(self) -> Path:
        """What the training printed, where a sweep started it."""
        return self.folder / "log.txt"

    @property
    def lock_file(self) -> Path:
        """What a training holds while it writes; beside the folder, which may be removed under it."""
        return self.folder.with_name(f".{self.folder.name}.lock")

    @property
    def title(self) -> str:
        """What the run is called in a message."""
        return f"{self.experiment}, {self.name}"

    @property
    def command(self) -> str:
        """The command that starts or continues this run, from any folder."""
        option = "" if self.name == "run1" else f" --run-name {self.name}"
        return f"bash {shlex.quote(str(TRAINING / self.experiment / 'run.sh'))}{option}"


def find_experiments() -> list[str]:
    """Return the names of the experiments under training/, the baseline first."""
    names = {path.parent.name for path in TRAINING.glob("*/specific_config.yaml")}
    return sorted(names, key=lambda name: (name != BASELINE, name))


def find_runs(sweep: str, experiments: Iterable[str] | None = None) -> list[Run]:
    """Return the runs of a sweep that were begun, of these experiments or of all."""
    if not re.fullmatch(NAME, sweep):
        raise UserError(f"sweep {sweep!r}: should be letters, digits, dots, dashes and underscores")
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
        raise UserError(f"no experiment is called {_shown(experiment)}; {hint}")
    return TRAINING / experiment


def code_version() -> str:
    """Return the commit of the code, with -dirty where files were changed since, or "unknown" outside its own git."""
    try:
        git = ["git", "-C", str(ROOT)]
        top, version = (
            subprocess.run([*git, *words], capture_output=True, text=True, check=True).stdout.strip()
            for words in (("rev-parse", "--show-toplevel"), ("describe", "--always", "--dirty"))
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return version if Path(top).resolve() == ROOT.resolve() else "unknown"  # not that of a repository around this one


def _shown(name: str) -> str:
    return repr(name) if len(name) <= 100 else repr(name[:97]) + "..."
