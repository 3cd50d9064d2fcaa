"""What many runs say over seeds: runs that differ in the seed alone make a group, compared with its baseline.

Equal seeds see equal data, initial weights and noise, so two ways of training are compared seed by seed, and what they
share cancels. Intervals are Student's t, of means and of paired differences: they assume that the numbers are roughly
normal over seeds. (No sign-flip test of five pairs can go below p = 0.06: for a claim, take more seeds.)
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import stats

from utils.evaluation.estimates import CONFIDENCE
from utils.runs.run import in_words, place
from utils.runs.store import mark
from utils.sweeps.results import Row


class Mean(NamedTuple):
    """A mean over seeds, half of its 95 % interval, and the p-value of it being 0; both are not-a-number where they
    cannot be had: of one seed, or where all have the same value."""

    value: float
    half_width: float
    p_value: float
    seeds: int

    @property
    def ends(self) -> np.ndarray:
        """The mean and the ends of its interval, (3,)."""
        return np.array([self.value, self.value - self.half_width, self.value + self.half_width])

    @property
    def is_not_zero(self) -> bool:
        """Whether the interval excludes zero."""
        return abs(self.value) > self.half_width > 0


NO_MEAN = Mean(math.nan, math.nan, math.nan, 0)


def mean_over_seeds(values: Sequence[float]) -> Mean:
    """Return the mean with Student's interval and two-sided p-value."""
    array = np.asarray(values, dtype=float)
    mean, n = float(array.mean()), len(array)
    if n < 2 or not np.all(np.isfinite(array)) or np.all(array == array[0]):
        return Mean(mean, 0.0 if n > 1 and mean == 0 else math.nan, math.nan, n)
    test = stats.ttest_1samp(array, 0.0)
    low, high = test.confidence_interval(CONFIDENCE)
    return Mean(mean, float(high - low) / 2, float(test.pvalue), n)


@dataclass(frozen=True)
class Group:
    """The runs that differ in the seed alone: seed -> row; and those of the same training by score matching alone."""

    runs: Mapping[str, Row]
    baseline: Mapping[str, Row]

    row = property(lambda group: next(iter(group.runs.values())))  # the first, for what all have in common
    weight = property(lambda group: float(group.row["weight"]) if group.row["weight"] else None)  # of the regularizer
    mark = property(lambda group: mark(*(group.row.get(name, "").title() == "True" for name in ("oracle", "forces"))))

    @property
    def title(self) -> str:
        """What it is called in a table."""
        name = in_words(self.row["experiment"])
        if self.weight is not None:
            name = ", ".join(filter(None, [name, f"weight {self.weight:g}", self.row["regularizer_settings"]]))
        return name + f" ({self.mark})" * bool(self.mark)

    def mean(self, metric: str) -> Mean | None:
        """Return the mean of a metric over seeds, or None where no run has it."""
        values = [float(row.get(metric) or "nan") for row in self.runs.values()]
        return None if all(map(math.isnan, values)) else mean_over_seeds(values)

    def difference(self, metric: str) -> Mean | None:
        """Return the paired difference to the baseline, on the seeds that both have, or None without any."""
        pairs = self._pairs(metric)
        return None if pairs is None else mean_over_seeds(pairs[0] - pairs[1])

    def log_ratio(self, metric: str) -> Mean | None:
        """Return the paired difference of the logarithms to the baseline's, or None where a value is not above 0.

        Its exponential is the ratio of the geometric means, with an interval that is as wide both ways.
        """
        pairs = self._pairs(metric)
        if pairs is None or not np.all(np.isfinite(pairs) & (pairs > 0)):
            return None
        return mean_over_seeds(np.subtract(*np.log(pairs)))

    def log_ratio_of_means(self, metric: str) -> Mean | None:
        """Return the logarithm of the mean's ratio to the baseline's, for what may be 0 in single runs. The interval is
        that of its linear part: to first order the logarithms of a/A and b/B change by a/A - b/B."""
        pairs = self._pairs(metric)
        if pairs is None or not np.all((means := np.mean(pairs, axis=1)) > 0):
            return None
        linear = mean_over_seeds(np.subtract(*(pairs / means[:, None])))
        return linear._replace(value=float(np.subtract(*np.log(means))))

    def _pairs(self, metric):
        """Return our values and the baseline's on common seeds, (2, seed), or None with nothing to compare."""
        seeds = [seed for seed in self.runs if seed in self.baseline]
        if not seeds or self.row["group"] == self.row["baseline"] or self.mean(metric) is None:
            return None
        both = (self.runs, self.baseline)
        return np.array([[float(runs[seed].get(metric) or "nan") for seed in seeds] for runs in both])


def _by_group(rows: Iterable[Row]) -> dict[str, dict[str, Row]]:
    """Return group -> seed -> row."""
    found: dict[str, dict[str, Row]] = defaultdict(dict)
    for row in rows:
        found[row["group"]][row["training_seed"]] = row
    return found


def groups(rows: Iterable[Row], every: Iterable[Row]) -> list[Group]:
    """Return the groups of some rows by experiment, regularizer's settings and weight.

    Baselines are looked for in `every`; one that is not among the rows comes as a group of its own, before the others.
    """
    rows = list(rows)
    chosen, known = _by_group(rows), _by_group(every)
    for name in dict.fromkeys(row["baseline"] for row in rows if row["baseline"] in known):
        chosen.setdefault(name, known[name])
    found = [Group(runs, known.get(next(iter(runs.values()))["baseline"], {})) for runs in chosen.values()]
    return sorted(found, key=lambda g: (place(g.row["experiment"]), g.row["regularizer_settings"], g.weight or 0.0))
