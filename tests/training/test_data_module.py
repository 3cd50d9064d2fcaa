"""The training and validation data: their distribution, and what they depend on."""

import math

import pytest
import torch
from networks import orthogonal
from trained import equal, train

from training.data_module import ToyData
from utils.randomness import keyed_generator
from utils.runs.loading import configure
from utils.runs.run import find_experiments


def toy_data(*overrides, experiment="no_regularizer"):
    return ToyData(configure(experiment, overrides))


@pytest.mark.parametrize("experiment", find_experiments())
def test_equal_seeds_see_equal_data_whatever_else_is_set(experiment):
    others = ["score_network.hidden_size=8", "optimizer.learning_rate=0.5", "max_epochs=3", "data.batch_size=7"]
    reference, data = toy_data(), toy_data(*others, experiment=experiment)
    torch.manual_seed(5)  # none of torch's global numbers enter
    theirs, ours = reference.training_epoch(3), data.training_epoch(3)
    assert equal(ours._replace(target=theirs.target), theirs)
    assert equal(ours.target, theirs.target) == (data.target is None)
    assert equal(data.validation_set(), reference.validation_set())


def test_what_changes_from_epoch_to_epoch_and_what_does_not(problem):
    data = toy_data()
    first, again, second = (data.training_epoch(epoch) for epoch in (0, 0, 1))
    assert equal(first, again)
    assert not set(first.t.tolist()) & set(second.t.tolist()[:100])
    assert equal(data.validation_set(), data.validation_set())
    assert not equal(toy_data("seed=1").validation_set(), data.validation_set())
    assert torch.equal(data.training_set, problem.sample(8192, keyed_generator(1234, "training data")))


@pytest.mark.usefixtures("training")
def test_each_epoch_shows_its_own_data_also_after_a_pause(monkeypatch):
    original, shown = ToyData.training_epoch, []
    monkeypatch.setattr(ToyData, "training_epoch", lambda self, epoch: shown.append(epoch) or original(self, epoch))
    for epochs in (2, 4):
        assert train(f"max_epochs={epochs}", "scheduler.type=constant") == 0
    assert shown == [0, 1, 2, 3]


def test_frozen_noise_shows_the_same_set_in_another_order():
    data = toy_data("data.fresh_noise=false")

    def rows(epoch):
        x, t, target, _ = data.training_epoch(epoch)
        return torch.cat([x.flatten(1), t[:, None], target.flatten(1)], 1).tolist()

    first, second = rows(0), rows(7)
    assert first != second
    assert sorted(first) == sorted(second)
    assert len(set(map(tuple, first))) == 8192


def test_times_are_uniform_or_so_many_equally_spaced():
    for fresh in ("true", "false"):
        t = toy_data("data.number_of_times=50", f"data.fresh_noise={fresh}").training_epoch(3).t
        assert torch.equal(t.unique(), torch.linspace(0, 1, 50))
    counts = torch.histc(toy_data().training_epoch(3).t, 16, 0, 1)
    assert ((counts - 512) ** 2 / 512).sum() < 45  # chi square with 15 degrees of freedom: p = 8e-5


def test_target_belongs_to_the_noised_configuration():
    """E[target | x, t] = sigma grad log p (denoising score matching), so target - exact is orthogonal to any f(x, t).

    That holds for the data as they are drawn, which are not symmetrised.
    """
    overrides = ["score_network.permutation_equivariant=false", "data.training_set_size=50000"]
    configuration = configure("no_regularizer", overrides)
    x, t, target, _ = ToyData(configuration).training_epoch(2)
    assert ((x >= 0) & (x < 1)).all()
    exact = configuration.build_truth()(x, t)
    angle, t = 2 * math.pi * x, t[:, None, None]
    functions = (exact, angle.sin(), angle.cos(), (2 * angle).sin() * t, (t < 0.3) * angle.cos(), exact.flip(0))
    assert orthogonal((target - exact).double(), functions)
    early = target[t.flatten() < 0.5]  # sigma < 0.015: nothing wraps, and the target is minus a unit normal
    assert early.square().mean().item() == pytest.approx(1, abs=4.5 * math.sqrt(2 / early.numel()))


@pytest.mark.parametrize(("equivariant", "floor"), [("true", 0.467), ("false", 0.435)])
def test_loss_of_the_exact_score_is_the_known_floor(equivariant, floor):
    overrides = [f"score_network.permutation_equivariant={equivariant}", "data.training_set_size=100000"]
    configuration = configure("no_regularizer", overrides)
    x, t, target, _ = ToyData(configuration).training_epoch(0)
    losses = (configuration.build_truth()(x, t) - target).square().mean((1, 2))
    # Both floors are known to three decimals; 0.435 is the mean over t of sigma_d^2 / width^2, without wrapping.
    assert losses.mean().item() == pytest.approx(floor, abs=1e-3 + 4.5 * losses.std().item() / math.sqrt(len(losses)))
