"""The one store of numbers: what is known of an evaluated run is its metrics.json.

It holds what was trained and how it was sampled (`facts`), every metric with value, standard error and number of
points, why others have no value, and curves against t. JSON has no infinity and no not-a-number: they stand as text.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import Tensor

from utils.evaluation.estimates import Curve, Estimate
from utils.evaluation.registry import Subject, complete, describe, evaluate
from utils.files import UserError, write_text
from utils.runs.checkpoints import Loaded, is_finished, load_run
from utils.runs.configuration import INCIDENTAL, Configuration, Problem, difference
from utils.runs.curves import rise_of_validation_loss, what_ran_away
from utils.runs.loading import configure, read_configuration
from utils.runs.run import ANALYTICAL, Run, code_version
from utils.score.samplers import Sampling

NEEDED = ("key", "oracle", "training_seed", "checkpoint", "code_version", "sampling", "network_evaluations_per_sample")
DESCRIPTION = ("label", "unit", "definition", "source", "better")  # of a metric
NUMBERS, CURVES = TypeAdapter(dict[str, Estimate]), TypeAdapter(dict[str, Curve])  # also from numbers that are text


@dataclass(frozen=True)
class Record:
    """The content of a metrics.json, and the folder it stands in."""

    facts: dict[str, Any]
    estimates: dict[str, Estimate]
    left_out: dict[str, str]
    curves: dict[str, Curve]
    folder: Path

    is_control = property(lambda record: record.facts["experiment"] == ANALYTICAL)  # the exact score
    mark = property(lambda record: mark(record.facts["oracle"], record.facts.get("forces", False)))
    competes = property(lambda record: not (record.is_control or record.mark))  # is a method
    problem = property(lambda record: Problem.model_validate(record.facts["problem"]))
    warning = property(lambda record: what_ran_away(record.facts.get("rise_of_validation_loss")))  # or nothing

    @property
    def title(self) -> str:
        """What the run is called on the page and in tables."""
        experiment, name = self.facts["experiment"], self.facts["run"]
        if name == "run1":
            return experiment
        return f"{experiment} (problem of {name.replace(',', ', ', 1)})" if self.is_control else f"{experiment}, {name}"

    @property
    def problem_in_words(self) -> str:
        """The settings of the problem that are not those of base_config.yaml; nothing where all are."""
        blocks, changes = tuple(Problem.model_fields), self.facts["configuration_difference"].items()
        ours = [(key, new) for key, (_, new) in changes if key.startswith(blocks) and new is not None]
        return ", ".join(f"{key}={json.dumps(new)}" for key, new in ours)

    def write(self, seconds: Mapping[str, float]) -> None:
        """Write metrics.json into the folder, with the wall-clock seconds of each part."""
        metrics = {}
        for name, estimate in self.estimates.items():
            about = describe(name)
            metrics[name] = estimate._asdict() | {word: getattr(about, word) for word in DESCRIPTION if about}
        found = {
            "wall_clock_seconds": {**seconds, "total": sum(seconds.values())},
            "metrics": metrics,
            "left_out": self.left_out,
            "curves": {name: curve._asdict() for name, curve in self.curves.items()},
        }
        # Floats get six digits, and are text where not finite. The facts keep all digits, for they tell runs apart.
        how: Any = {"parse_float": lambda s: float(f"{float(s):.6g}"), "parse_constant": lambda s: str(float(s))}
        content = self.facts | json.loads(json.dumps(found), **how)
        write_text(self.folder / "metrics.json", json.dumps(content, indent=2, allow_nan=False) + "\n")

    @classmethod
    def read(cls, path: Path) -> "Record":
        """Return the record in a metrics.json; raises UserError where it is damaged, or of an older version."""
        try:
            facts = json.loads(path.read_bytes())
            metrics, curves = facts.pop("metrics"), CURVES.validate_python(facts.pop("curves"))
            numbers = {name: [entry[field] for field in Estimate._fields] for name, entry in metrics.items()}
            record = cls(facts, NUMBERS.validate_python(numbers), facts.pop("left_out"), curves, path.parent)
            _ = record.title, record.problem, record.problem_in_words, [facts[name] for name in NEEDED]
            return record
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            reason = f"no {error}" if isinstance(error, KeyError) else getattr(error, "strerror", None) or error
            reason = ", ".join(str(reason).splitlines()[:2])  # pydantic's has more
            raise UserError(f"{path}: not readable ({reason}); analyse the run again, or remove it") from error


def mark(oracle: bool, forces: bool) -> str:
    """Return what a training uses beyond samples, as tables name it; nothing for a method. `forces` came later."""
    return "oracle" if oracle else "forces" if forces else ""


def evaluate_run(
    loaded: Loaded, sampling: Sampling, folder: Path, progress: bool = False
) -> tuple[Record, dict[float, Tensor], dict[str, float]]:
    """Return the numbers of a run, a record for `folder`; its samples at times along the sampler; and the seconds of
    each part. `progress` shows bars, on a terminal. Raises UserError where samples are infinite or not a number."""
    torch.set_num_threads(1)
    configuration, network, began = loaded.configuration, loaded.network, time.perf_counter()
    states = sampling.draw(network, configuration.toy_problem, progress)
    if not all(torch.isfinite(x).all() for x in states.values()):
        raise UserError(f"{loaded.run.title}: left out, since its network's output becomes infinite or not a number")
    sampled = time.perf_counter()
    truth, training_set = configuration.build_truth(), configuration.training_set()
    evaluation = evaluate(Subject(network, truth, training_set, states, sampling.seed), progress)
    facts, seconds = facts_of(loaded, sampling), {"sampling": sampled - began, "metrics": time.perf_counter() - sampled}
    return Record(facts, evaluation.estimates, evaluation.skipped, evaluation.curves, folder), states, seconds


def kept(path: Path, **facts: Any) -> Record | None:
    """Return the numbers in a metrics.json, or None where it has not all metrics, or not these facts."""
    try:
        record = Record.read(path)
    except UserError:  # missing or damaged
        return None
    same = record.facts | facts == record.facts
    return record if same and complete([*record.estimates, *record.left_out]) else None


def evaluated(run: Run, sampling: Sampling) -> Record:
    """Return the numbers of a trained run from its metrics.json; where it has none as it is now, it is evaluated."""
    key = read_configuration(run.configuration_file).key()
    if record := kept(run.metrics_file, key=key, sampling=sampling.model_dump()):
        return record
    record, _, seconds = evaluate_run(load_run(run), sampling, run.folder)
    record.write(seconds)
    return record


def facts_of(loaded: Loaded, sampling: Sampling) -> dict[str, Any]:
    """Return what was trained, how it was sampled, and by which code."""
    run, configuration = loaded.run, loaded.configuration
    changes = difference(configure(ANALYTICAL), configuration).items()
    return {
        "experiment": run.experiment,
        "run": run.name,
        **what_was_trained(run, configuration),
        "epochs": loaded.epochs,
        "finished": loaded.checkpoint is None or is_finished(run),
        "checkpoint": loaded.checkpoint and loaded.checkpoint.name,  # last.ckpt where best.ckpt is damaged or missing
        "rise_of_validation_loss": rise_of_validation_loss(run.curves_file),
        "code_version": code_version(),
        "sampling": sampling.model_dump(),
        "network_evaluations_per_sample": sampling.network_evaluations,
        "problem": configuration.problem.model_dump(mode="json"),
        "configuration_difference": {key: [*both] for key, both in changes},  # as JSON has it
    }


def what_was_trained(run: Run, configuration: Configuration) -> dict[str, Any]:
    """Return what tells runs apart.

    `key` is of all that is trained; runs of one `group` differ in the seed alone; `baseline` is the group of the same
    training by score matching alone. The settings are those that the experiment's files do not have.
    """
    settings: dict[bool, list[str]] = {False: [], True: []}  # of the training, and of the regularizer
    for name, (_, value) in sorted(difference(configure(run.experiment), configuration).items()):
        if name not in ("seed", "regularizer.weight") and not name.startswith(INCIDENTAL):
            text = f"{name.removeprefix('regularizer.')}={json.dumps(value)}"
            settings[name.startswith("regularizer.")].append(text)
    return {
        "key": configuration.key(),
        "group": configuration.key("seed"),
        "baseline": configuration.baseline.key("seed"),
        "training_settings": ", ".join(settings[False]),
        "regularizer_settings": ", ".join(settings[True]),
        "weight": configuration.regularizer and configuration.regularizer.weight,
        "oracle": configuration.is_oracle,
        "forces": configuration.uses_forces,
        "training_seed": configuration.seed,
    }
