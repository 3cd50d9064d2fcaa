"""What the rows of a results file say over seeds: runs that differ in the seed alone make a group."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from utils.sweeps.paired import Difference, Mean, mean_over_seeds, paired_difference
from utils.sweeps.results import METRICS


@dataclass(frozen=True)
class Group:
    """The runs of a sweep that differ in the seed alone."""

    sweep: str
    experiment: str
    regime: str
    setting: str
    weight: float | None
    oracle: bool
    epochs: int  # the most that a run took
    means: Mapping[str, Mean]
    differences: Mapping[str, Difference]  # to the same training without regularizer, on the seeds that both have
    runs: Mapping[str, Mapping[str, str]]  # seed -> row

    @property
    def title(self) -> str:
        """What it is called in a table."""
        if self.weight is None:
            return self.experiment.replace("_", " ")
        words = [
            self.experiment.removesuffix("_regularizer").replace("_", " "),
            f"weight {self.weight:g}",
            self.setting,
        ]
        return ", ".join(filter(None, words))

    def differences_to(self, baseline: "Group") -> dict[str, Difference]:
        """Return the difference of every metric to another group, on the seeds that both have; nothing without any."""
        return _differences(self.runs, baseline.runs)


def groups(rows: Iterable[Mapping[str, str]]) -> list[Group]:
    """Return what the rows say over seeds: without regularizer first, then by experiment, setting and weight.

    The same training in two sweeps, on other seeds, makes two groups; a baseline may come from any sweep.
    """
    of_sweep, anywhere = defaultdict(dict), defaultdict(dict)
    for row in rows:
        of_sweep[row["sweep"], row["group"]][row["seed"]] = anywhere[row["group"]][row["seed"]] = row
    found = []
    for (_, name), by_seed in of_sweep.items():
        first = next(iter(by_seed.values()))
        baseline = anywhere[first["baseline"]] if first["baseline"] != name else {}
        values = {metric: [_number(row[metric]) for row in by_seed.values()] for metric in METRICS}
        found.append(
            Group(
                sweep=first["sweep"],
                experiment=first["experiment"],
                regime=first["regime"],
                setting=first["setting"],
                weight=float(first["weight"]) if first["weight"] else None,
                oracle=first["oracle"] == "True",
                epochs=max(int(row["epochs"]) for row in by_seed.values()),
                means={metric: mean_over_seeds(v) for metric, v in values.items() if not all(map(math.isnan, v))},
                differences=_differences(by_seed, baseline),
                runs=by_seed,
            )
        )
    return sorted(found, key=lambda g: (g.weight is not None, g.experiment, g.setting, g.weight or 0))


def with_baselines(chosen: Iterable[Group], every: Iterable[Group]) -> list[Group]:
    """Return some groups, and before them the baselines of theirs that stand in other sweeps, on all their seeds."""
    chosen, added = list(chosen), []

    def name(group, column):
        return next(iter(group.runs.values()))[column]

    for group in chosen:
        baseline = name(group, "baseline")
        if baseline not in {name(other, "group") for other in [*chosen, *added]}:
            added += [g for g in every if name(g, "group") == baseline and g.runs.keys() >= group.runs.keys()][:1]
    return added + chosen


def _differences(by_seed, baseline):
    if not (shared := [seed for seed in by_seed if seed in baseline]):
        return {}

    def values(source, metric):
        return [_number(source[seed][metric]) for seed in shared]

    return {metric: paired_difference(values(by_seed, metric), values(baseline, metric)) for metric in METRICS}


def _number(text: str) -> float:
    return float(text) if text else math.nan
