"""The benchmarks measure what they say."""

from itertools import islice
from types import SimpleNamespace

import pytest
import torch

from benchmarks import derivatives, epochs
from utils.files import UserError
from utils.runs.loading import configure
from utils.runs.run import find_experiments
from utils.score.derivatives import by_forward_mode


def test_seconds_of_an_epoch_are_without_the_start_and_the_first_round(monkeypatch):
    """A clock that the trainings move: 5 s to start, 0.5 s an epoch, 100 s more in the first round for the imports."""
    clock, moves = [0.0], iter([100.0])

    def training(number):
        clock[0] += next(moves, 0.0) + 5 + 0.5 * number

    monkeypatch.setattr(epochs, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    monkeypatch.setattr(epochs, "actions", lambda: {"one": training, "other": training})
    assert epochs.seconds_an_epoch(rounds=2) == {"one": pytest.approx([0.5] * 2), "other": pytest.approx([0.5] * 2)}
    assert epochs.ratio({"one": [2.0, 30.0, 4.0], "other": [1.0, 10.0, 4.0]}, "one", "other") == 2  # median over rounds


def test_every_experiment_is_measured_or_says_why_not_beside_the_loop_by_hand_which_goes_on(training):
    assert {epochs.BY_HAND, epochs.PLAIN, *find_experiments()[1:]} <= epochs.actions().keys()
    assert len(list(islice(epochs.epochs_by_hand(), 2))) == 2
    (training / "no_regularizer" / "specific_config.yaml").write_text("sed: 1")
    with pytest.raises(UserError, match="sed: unknown key"):
        epochs.actions()[epochs.PLAIN](1)


def test_both_ways_that_are_measured_give_the_same_derivatives(generator):
    network = configure("no_regularizer").build_network().double()
    x, t = (torch.rand(*shape, generator=generator, dtype=torch.float64) for shape in ((5, 2, 1), (5,)))
    for one, other in zip(by_forward_mode(network, x, t), derivatives.by_torch_func(network, x, t), strict=True):
        torch.testing.assert_close(one, other)
