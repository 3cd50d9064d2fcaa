"""What is trained and logged: losses, learning rates, regularizers, and the message where one becomes infinite."""

import math
from types import SimpleNamespace

import pytest
import torch
from trained import events, steps, stopping_after, train, values

from training.data_module import ToyData
from training.lightning_module import MONITOR, ScoreMatching
from utils.runs.loading import configure
from utils.runs.run import BASE_STUDY, Run, find_experiments

pytestmark = pytest.mark.usefixtures("training")


def evaluated(configuration, network=None):
    """Return the scalars of one validation, the data and the module."""
    module = ScoreMatching(configuration)
    module.network = network or module.network
    module.log = lambda *_, **__: None
    module._trainer = SimpleNamespace(current_epoch=0)
    data = ToyData(configuration).validation_set()
    with torch.no_grad():
        module.validation_step(data, 0)
    return {name: float(value) for name, value in module.scalars.items()}, data, module


def test_path_kl_is_rate_times_components_times_excess():
    """In expectation, since target - exact is orthogonal to any equivariant function of (x, t)."""
    configuration = configure("no_regularizer", ["data.validation_set_size=50000"])
    scalars, data, module = evaluated(configuration)
    with torch.no_grad():
        output, exact = module.network(data.x, data.t), module.truth(data.x, data.t)
    cross = 2 * ((output - exact) * (exact - data.target)).mean((1, 2))
    rate, components = configuration.noise_schedule.rate, 2
    # What is left is the cross term of the two squares: mean zero, so within 4.5 of its standard errors.
    tolerance = rate * components * 4.5 * cross.std().item() / math.sqrt(len(cross))
    expected = rate * components * scalars["excess_loss/validation"]
    assert scalars["path_kl_in_nats/validation"] == pytest.approx(expected, abs=tolerance)
    assert tolerance < 0.07 * expected  # or this would say nothing


def test_exact_score_has_no_excess_loss_and_no_path_kl_and_a_regularizer_changes_no_validation_loss():
    plain, *others = (configure(experiment) for experiment in BASE_STUDY)  # of one network
    scalars, _, _ = evaluated(plain, plain.build_truth())
    assert scalars["excess_loss/validation"] == scalars["path_kl_in_nats/validation"] == 0
    assert scalars[MONITOR] > 0.4  # the floor
    assert {evaluated(other)[0][MONITOR] for other in others} == {evaluated(plain)[0][MONITOR]}


@pytest.mark.parametrize("experiment", [name for name in find_experiments() if configure(name).regularizer])
def test_regularizer_is_logged_raw_and_weighted_after_its_burn_in(experiment):
    assert train("max_epochs=3", "regularizer.weight=0.25", "regularizer.burn_in_epochs=1", experiment=experiment) == 0
    scalars, _ = events(Run(experiment).folder)
    for phase in ("training", "validation"):
        names = "regularizer", "weighted_regularizer", "score_matching_loss", "total_loss"
        raw, weighted, plain, total = (dict(scalars[f"{name}/{phase}"]) for name in names)
        assert list(raw) == [1, 2] and list(total) == [0, 1, 2]
        gap = steps(scalars.get("consistency_gap_squared/validation", []))
        assert gap == ([0] if experiment.startswith("consistency") else [])  # every tenth epoch
        assert total[0] == plain[0]
        for epoch in raw:
            assert weighted[epoch] == pytest.approx(0.25 * raw[epoch], rel=1e-6)
            assert total[epoch] == pytest.approx(plain[epoch] + weighted[epoch], rel=1e-6)


@pytest.mark.parametrize("scheduler", ["constant", "cosine", "plateau"])
def test_learning_rate_follows_its_schedule_also_where_the_run_was_stopped(scheduler):
    keys = ", patience: 1, factor: 0.5" if scheduler == "plateau" else ""
    words = "max_epochs=12", "optimizer.learning_rate=0.1", f"scheduler={{type: {scheduler}{keys}}}"
    with stopping_after(5):
        assert train(*words) == 1
    assert train(*words) == 0
    scalars, _ = events(Run("no_regularizer").folder)
    if scheduler == "plateau":
        expected, optimizer = [], torch.optim.SGD([torch.zeros(1)], lr=0.1)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=1, factor=0.5)
        for loss in values(scalars[MONITOR]):
            expected.append(optimizer.param_groups[0]["lr"])
            plateau.step(loss)
        assert 1 < len(set(expected)) < 12  # it fell, but not always
    else:
        expected = [0.1 * (0.5 * (1 + math.cos(math.pi * k / 12)) if scheduler == "cosine" else 1) for k in range(12)]
    assert values(scalars["learning_rate"]) == pytest.approx(expected, rel=1e-6)  # event files hold float32


def test_regularizer_that_becomes_infinite_ends_the_run_with_its_name_and_the_last_good_checkpoint(capsys):
    experiment = "fokker_planck_regularizer"
    words = "max_epochs=4", "regularizer.weight=1e300", "regularizer.burn_in_epochs=2", "scheduler.type=constant"
    assert train(*words, experiment=experiment) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("epoch 3: the regularizer fokker_planck (weight 1e+300) became infinite or not a number")
    best = Run(experiment).best_checkpoint
    assert said.endswith(str(best))
    assert all(torch.isfinite(weight).all() for weight in torch.load(best, weights_only=True)["state_dict"].values())


@pytest.mark.parametrize("batch_size", [128, 512])  # four steps an epoch; one, so that the validation comes first
@pytest.mark.parametrize(
    ("experiment", "word", "also"),
    [
        ("no_regularizer", "seed=1", ""),
        ("consistency_regularizer", "regularizer.burn_in_epochs=1", ""),
        ("consistency_regularizer", "regularizer.weight=1e-30", " and the regularizer consistency (weight 1e-30)"),
    ],
)
def test_loss_that_becomes_infinite_is_named_and_no_other(capsys, experiment, word, also, batch_size):
    words = "max_epochs=2", "optimizer.learning_rate=1e25", f"data.batch_size={batch_size}"
    assert train(word, *words, experiment=experiment) == 2
    last_line = capsys.readouterr().err.splitlines()[-1]
    text = f"epoch 1: the score-matching loss{also} became infinite or not a number. Try a smaller learning rate"
    assert last_line.startswith(text + (" or weight." if also else "."))
    assert last_line.endswith("The last good checkpoint: none was saved yet")


def test_gradient_that_is_no_number_is_noticed_in_the_loss_after_it(capsys, monkeypatch):
    def spoil(module):
        if module.current_epoch == 1:
            next(module.network.parameters()).register_hook(lambda gradient: gradient * math.nan)

    monkeypatch.setattr(ScoreMatching, "on_train_epoch_start", spoil)
    assert train("max_epochs=4", "scheduler.type=constant") == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("epoch 2: the score-matching loss became infinite or not a number. Try a smaller learning")
    best = Run("no_regularizer").best_checkpoint
    assert said.endswith(str(best)) and torch.load(best, weights_only=True)["epochs_done"] == 1
