"""The benchmarks measure what they say."""

import pytest

from benchmarks import __main__ as benchmarks
from utils.files import UserError
from utils.runs.run import BASELINE, find_experiments


def test_seconds_of_an_epoch_are_without_the_start_and_the_first_round(monkeypatch):
    """Trainings that take 5 s to start, 0.5 s an epoch, 100 s more in the beginning for the imports."""
    more = iter([100.0])
    monkeypatch.setattr(benchmarks, "TRAININGS", {"one": ("a",), "other": ("b", "c=1")})
    monkeypatch.setattr(benchmarks, "seconds_of", lambda *_, epochs: next(more, 0.0) + 5 + 0.5 * epochs)
    half = pytest.approx([0.5] * 2)
    assert benchmarks.seconds_an_epoch(rounds=2) == {"one": half, "other": half}


def test_table_has_medians_over_rounds_of_what_an_epoch_takes_in_plain_ones(monkeypatch):
    monkeypatch.setattr(benchmarks, "seconds_an_epoch", lambda: {BASELINE: [2.0, 30.0, 4.0], "idea": [3.0, 30.0, 8.0]})
    assert [*benchmarks.rows()] == [(BASELINE, "4000.0 ms"), ("idea", "1.50 plain epochs")]


def test_every_experiment_is_measured_and_one_that_cannot_start_says_why(training):
    assert benchmarks.TRAININGS.keys() > {*find_experiments()}
    assert benchmarks.seconds_of(BASELINE, epochs=1) > 0
    (training / BASELINE / "specific_config.yaml").write_text("sed: 1")
    with pytest.raises(UserError, match="sed: unknown key"):
        benchmarks.seconds_of(BASELINE, epochs=1)
