"""Numbers as text. Wherever ± stands, what follows it is half of a 95 % interval."""

import math
from collections.abc import Sequence

from scipy import stats
from uncertainties import ufloat

from utils.evaluation.estimates import CONFIDENCE, Estimate

MISSING = "\N{EN DASH}"
EXPLANATION = (
    "±: half of the 95 % interval over seeds (Student's t). Differences and ratios are to the same training without a"
    " regularizer, paired by seed; a ratio is that of geometric means, with its 95 % interval. * marks a"
    " difference whose interval excludes 0, and a ratio whose interval excludes 1."
)


def half_width(estimate: Estimate) -> float:
    """Return half of the 95 % interval of a measurement: 1.96 standard errors, or the longer side of its own."""
    if estimate.interval:
        return max(estimate.interval[1] - estimate.value, estimate.value - estimate.interval[0])
    return float(stats.norm.ppf((1 + CONFIDENCE) / 2)) * (estimate.standard_error or 0.0)


def with_interval(value: float, half: float = 0.0, digits: int = 2, sign: bool = False) -> str:
    """Return `0.0213 ± 0.0008`, to so many digits of the half-width; to four of the value where there is none."""
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else f"{value:g}"
    plus = "+" if sign and value > 0 else ""
    if not math.isfinite(half) or half <= 0:
        return f"{plus}{value:.4g}".replace("-", "\N{MINUS SIGN}", 1 if value < 0 else 0)
    return plus + f"{ufloat(value, half):.{digits}uP}".replace("±", " ± ").replace("-", "\N{MINUS SIGN}")


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a line for each row of a table, with the columns below each other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
