"""The benchmarks measure what they say."""

import itertools

import pytest

from benchmarks import __main__ as benchmarks
from utils.files import UserError
from utils.runs.run import BASELINE, find_experiments


def test_rows_are_medians_of_ratios_of_epochs_to_plain_ones_without_start_and_imports(monkeypatch):
    """Trainings that take 5 s to start, 0.5 s a plain epoch and 0.75 s another, and 100 s for the imports; in the
    second round the machine is three times as slow."""
    more, calls = iter([100.0]), itertools.count()

    def seconds_of(name, *_, epochs):
        slow = 3 if 4 < next(calls) <= 8 else 1
        return next(more, 0.0) + 5 + slow * epochs * (0.5 if name == BASELINE else 0.75)

    monkeypatch.setattr(benchmarks, "TRAININGS", {BASELINE: (BASELINE,), "idea": ("idea", "c=1")})
    monkeypatch.setattr(benchmarks, "seconds_of", seconds_of)
    assert [*benchmarks.rows(rounds=3)] == [(BASELINE, "500.0 ms"), ("idea", "1.50 plain epochs")]


def test_every_experiment_is_measured_and_one_that_cannot_start_says_why(training):
    assert benchmarks.TRAININGS.keys() > {*find_experiments()}
    assert benchmarks.seconds_of(BASELINE, epochs=1) > 0
    (training / BASELINE / "specific_config.yaml").write_text("sed: 1")
    with pytest.raises(UserError, match="sed: unknown key"):
        benchmarks.seconds_of(BASELINE, epochs=1)
