"""Sweeps: which runs a grid of experiments, overrides and seeds consists of, and what each is called.

A run's name tells its place in the grid, so a grid that grows keeps what is trained already.
"""

import hashlib
import itertools
import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, field_validator

from utils.files import UserError
from utils.runs.checkpoints import is_finished
from utils.runs.configuration import Configuration
from utils.runs.loading import configure, read_settings
from utils.runs.run import BASE_STUDY, NAME, SPELLING, Run, find_experiments
from utils.settings import Settings

MAX_RUNS = 10_000  # planning takes about 10 ms a run, and a person should look at it
MAX_TAG = 120  # bytes; file systems allow 255, but shorter names stay readable


def _leave_runs(overrides: dict[str, Any]) -> dict[str, Any]:
    if "seed" in overrides:
        raise ValueError("seed: the seeds are those of `seeds`")
    if empty := [key for key, value in overrides.items() if value == []]:
        raise ValueError(f"{empty[0]}: an empty list of values leaves no run")
    return overrides


Overrides = Annotated[dict[str, Any], AfterValidator(_leave_runs)]


class Part(Settings):
    """Some experiments, with every combination of some overrides. One that is a list has these values in turn; any
    other value is the same in all runs and not in their names."""

    experiments: Annotated[list[str], Field(min_length=1)]
    overrides: Overrides = Field(default_factory=dict)

    @field_validator("experiments")
    @classmethod
    def _exist(cls, names):
        if unknown := [name for name in names if name not in find_experiments()]:
            raise ValueError(f"no experiment is called {unknown[0]!r}; there are: {', '.join(find_experiments())}")
        return names

    def varied(self, common: dict[str, Any]) -> dict[str, list]:
        """Return the overrides that differ between runs, with their values; the common ones are included."""
        return {key: value for key, value in (common | self.overrides).items() if isinstance(value, list)}


class Sweep(Settings):
    """The schema of sweep_config.yaml."""

    name: str
    seeds: Annotated[list[Annotated[int, Field(ge=0, lt=2**63)]], Field(min_length=1)]
    overrides: Overrides = Field(default_factory=dict)  # of all parts; a part's own come before
    parts: Annotated[list[Part], Field(min_length=1)]

    @field_validator("name")
    @classmethod
    def _is_a_folder(cls, name):
        if not re.fullmatch(NAME, name):
            raise ValueError(SPELLING)
        return name


@dataclass(frozen=True)
class PlannedRun:
    """A run of a sweep, before it is trained: the words that start it, and what they amount to."""

    run: Run
    overrides: tuple[str, ...]
    configuration: Configuration

    @property
    def state(self) -> str:
        """How far its training is."""
        return "finished" if is_finished(self.run) else "begun" if self.run.last_checkpoint.exists() else "to do"


def plan_shipped(experiments: Iterable[str] | None = None) -> list[PlannedRun]:
    """Return run1 of these experiments, or of those of the base study, at their shipped settings."""
    return [PlannedRun(Run(name), (), configure(name)) for name in experiments or BASE_STUDY]


def plan(path: Path) -> list[PlannedRun]:
    """Return the different runs of a sweep; raises UserError with one line per fault, of the grid or of any run."""
    sweep = read_settings(path, Sweep)
    sizes = [len(p.experiments) * math.prod(map(len, p.varied(sweep.overrides).values())) for p in sweep.parts]
    if (number := sum(sizes) * len(sweep.seeds)) > MAX_RUNS:
        raise UserError(f"{path}: parts: these are {number:,} runs; a sweep has at most {MAX_RUNS:,}")
    planned: dict[tuple[str, str], PlannedRun] = {}
    names: dict[Run, str] = {}
    faults: list[str] = []
    for number, part in enumerate(sweep.parts):
        varied = part.varied(sweep.overrides)
        shared = {key: value for key, value in (sweep.overrides | part.overrides).items() if key not in varied}
        grid = itertools.product(part.experiments, itertools.product(*varied.values()), sweep.seeds)
        for experiment, values, seed in grid:
            origin = f"{path}: parts.{number}, {experiment}"
            settings = dict(zip(varied, values, strict=True)) | {"seed": seed}
            overrides = tuple(f"{key}={_written(value)}" for key, value in (shared | settings).items())
            try:
                configuration = configure(experiment, overrides, origin)
            except UserError as fault:
                faults += str(fault).splitlines()
                continue
            run = Run(experiment, f"{sweep.name}/{tag(settings)}")
            what = json.dumps(configuration.as_dict(), sort_keys=True)
            planned.setdefault((experiment, what), PlannedRun(run, overrides, configuration))
            if names.setdefault(run, what) != what:
                how = "name what tells them apart, as a list of one value: `key: [value]`"
                faults.append(f"{origin}: two configurations would both be {run.name}; {how}")
            if (run.folder.parent / "config.yaml").exists():
                faults.append(f"{path}: name: {run.folder.parent} is a run already; choose another")
    if faults:
        raise UserError("\n".join(dict.fromkeys(faults)))  # most are the same for every seed
    return list(planned.values())


def tag(settings: dict[str, Any]) -> str:
    """Return a name for the settings, in alphabetical order, the seed last; a hash ends it where it is not exact."""
    items = sorted(settings.items(), key=lambda item: (item[0] == "seed", item[0]))
    exact = ",".join(f"{key}={_written(value)}" for key, value in items)
    plain = ",".join(f"{key}={value if isinstance(value, str) else _written(value)}" for key, value in items)
    readable = re.sub(r"[^A-Za-z0-9_.,=+-]+", "_", plain)
    if readable == plain and len(readable) <= MAX_TAG:
        return readable
    return f"{readable[: MAX_TAG - 9]}-{hashlib.sha256(exact.encode()).hexdigest()[:8]}"


def _written(value: Any) -> str:
    """Return a value as YAML reads it back."""
    return json.dumps(value, ensure_ascii=False)
