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

    monkeypatch.setattr(benchmarks, "time", SimpleNamespace(process_time=lambda: clock[0]))
    monkeypatch.setattr(benchmarks, "trainings", lambda: {"one": training, "other": training})
    half = pytest.approx([0.5] * 2)
    assert benchmarks.seconds_an_epoch(rounds=2) == {"one": half, "other": half}


def test_table_has_medians_over_rounds_of_what_an_epoch_takes_in_units_of_another(monkeypatch):
    found = {benchmarks.BY_HAND: [1.0, 10.0, 4.0], benchmarks.PLAIN: [2.0, 30.0, 4.0], "idea": [3.0, 30.0, 8.0]}
    monkeypatch.setattr(benchmarks, "seconds_an_epoch", lambda: found)
    monkeypatch.setattr(benchmarks, "seconds_of_derivatives", lambda points: (points / 1e3, 1e-3))
    epochs, derivatives = list(benchmarks.rows())[:3], list(benchmarks.rows())[3:]
    plain = (f"epoch of {benchmarks.PLAIN}", "2.00 by hand")
    assert epochs == [("epoch by hand", "4000.0 ms"), plain, ("epoch of idea", "1.50 plain epochs")]
    assert [result for _, result in derivatives] == ["64.0 ms : 1.0 ms = 64.0", "512.0 ms : 1.0 ms = 512.0"]


def test_every_experiment_is_measured_beside_the_loop_by_hand(training):
    assert benchmarks.trainings().keys() >= {benchmarks.BY_HAND, benchmarks.PLAIN, *find_experiments()[1:]}
    benchmarks.trainings()[benchmarks.BY_HAND](2)
    assert min(benchmarks.seconds_of_derivatives(2)) > 0


def test_training_that_cannot_be_started_says_why(training):
    (training / "no_regularizer" / "specific_config.yaml").write_text("sed: 1")
    with pytest.raises(UserError, match="sed: unknown key"):
        benchmarks.trainings()[benchmarks.PLAIN](1)
