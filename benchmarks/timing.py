"""How durations are measured: interleaved, so that what else the machine does meets all alike; medians over repeats."""

import math
import time
from collections.abc import Callable, Mapping
from statistics import linear_regression, median


def medians(actions: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Return the median wall-clock time of each action in seconds; each is done once before, unmeasured."""
    for action in actions.values():
        action()
    times: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(repeats):
        for name, action in actions.items():
            began = time.perf_counter()
            action()
            times[name].append(time.perf_counter() - began)
    return {name: median(values) for name, values in times.items()}


def exponent(seconds: Mapping[int, float]) -> float:
    """Return b of the least-squares fit seconds = a size^b, for seconds by size."""
    return linear_regression([math.log(size) for size in seconds], [math.log(s) for s in seconds.values()]).slope
