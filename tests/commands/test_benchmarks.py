"""The benchmarks measure what they say."""

from types import SimpleNamespace

import pytest

from benchmarks import __main__ as benchmarks
from utils.files import UserError
from utils.runs.run import find_experiments


def test_seconds_of_an_epoch_are_without_the_start_and_the_first_round(monkeypatch):
    """A clock that the trainings move: 5 s to start, 0.5 s an epoch, 100 s more in the first round for the imports."""
    clock, moves = [0.0], iter([100.0])

    def training(number):
        clock[0] += next(moves, 0.0) + 5 + 0.5 * number

    monkeypatch.setattr(benchmarks, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    monkeypatch.setattr(benchmarks, "trainings", lambda: {"one": training, "other": training})
    half = pytest.approx([0.5] * 2)
    assert benchmarks.seconds_an_epoch(rounds=2) == {"one": half, "other": half}
    found = {"one": [2.0, 30.0, 4.0], "other": [1.0, 10.0, 4.0]}
    assert benchmarks.ratio(found, "one", "other") == 2  # median over rounds


def test_every_experiment_is_measured_beside_the_loop_by_hand(training):
    assert benchmarks.trainings().keys() >= {benchmarks.BY_HAND, benchmarks.PLAIN, *find_experiments()[1:]}
    benchmarks.trainings()[benchmarks.BY_HAND](2)
    assert min(benchmarks.seconds_of_derivatives(2)) > 0


def test_training_that_cannot_be_started_says_why(training):
    (training / "no_regularizer" / "specific_config.yaml").write_text("sed: 1")
    with pytest.raises(UserError, match="sed: unknown key"):
        benchmarks.trainings()[benchmarks.PLAIN](1)
