"""The training, from run.sh to the event files: what it writes, how it goes on, and the law of its data."""

import io
import math
import os
import re
from types import SimpleNamespace

import pytest
import torch
import yaml
from conftest import SHORT, in_shell
from PIL import Image
from trained import SMALL, equal, events, steps, train

from training.data_module import ToyData
from training.lightning_module import MONITOR, ScoreMatching
from training.train import main
from utils.files import locked
from utils.randomness import keyed_generator
from utils.runs.loading import Run, configure, find_experiments

SCALARS = {
    "score_matching_loss/training",
    "score_matching_loss/validation",
    "total_loss/training",
    "total_loss/validation",
    "excess_loss/validation",
    "path_kl_in_nats/validation",
    "learning_rate",
}


def snapshot(folder):
    """Return every file below a folder with its content and the time of its last change."""
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def plain(value):
    """Whether a value consists of what weights_only=True can read."""
    if isinstance(value, dict):
        return all(map(plain, value.values()))
    return all(map(plain, value)) if isinstance(value, list) else isinstance(value, (str, int, float, type(None)))


def run_sh(clone, *words, cwd=None):
    return in_shell("bash", str(clone / "training" / "no_regularizer" / "run.sh"), *words, cwd=cwd or clone)


@pytest.fixture
def run1(clone):
    return clone / "training" / "no_regularizer" / "output" / "run1"


# --- what a short run leaves


def test_configuration_is_written_beside_the_run_and_in_the_experiments_folder(clone, run1):
    written = (run1 / "config.yaml").read_bytes()
    assert (run1.parent.parent / "config.yaml").read_bytes() == written
    assert yaml.safe_load(written) == configure("no_regularizer", SHORT).as_dict()


def test_run_holds_what_was_promised_and_nothing_else(run1):
    names = sorted(path.relative_to(run1).as_posix() for path in run1.rglob("*") if path.is_file())
    assert [name for name in names if "tfevents" not in name] == [
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "config.yaml",
        "curves.csv",
    ]
    assert len(names) == 5


@pytest.mark.parametrize("name", ["best.ckpt", "last.ckpt"])
def test_checkpoint_holds_tensors_and_plain_values(run1, name):
    checkpoint = torch.load(run1 / "checkpoints" / name, weights_only=True)
    expected = configure("no_regularizer", SHORT).build_network().state_dict()
    assert checkpoint["state_dict"].keys() == {f"network.{key}" for key in expected}
    assert plain(checkpoint["hyper_parameters"])
    assert checkpoint["hyper_parameters"] == configure("no_regularizer", SHORT).as_dict()
    assert not any(torch.equal(checkpoint["state_dict"][f"network.{key}"], expected[key]) for key in expected)


def test_scalars_are_there_once_an_epoch(run1):
    scalars, _ = events(run1)
    assert scalars.keys() >= SCALARS
    assert {tag: steps(scalars[tag]) for tag in SCALARS} == {tag: [0, 1, 2, 3] for tag in SCALARS}
    assert all(math.isfinite(value) for series in scalars.values() for _, value in series)
    assert all(value == pytest.approx(1e-3) for _, value in scalars["learning_rate"])  # the plateau is far off


def test_pictures_can_be_looked_at(run1):
    _, images = events(run1)
    sizes = {"score_along_the_line": (1100, 580), "score_field": (1452, 902)}  # inches times dots per inch
    assert images.keys() == sizes.keys()
    for tag, size in sizes.items():
        assert [event.step for event in images[tag]] == [1, 3]  # after the second and the fourth epoch
        for event in images[tag]:
            picture = Image.open(io.BytesIO(event.encoded_image_string))
            assert picture.format == "PNG" and picture.size == size
            assert picture.convert("L").getextrema() == (0, 255)  # decodes, and is not blank
        first, second = (event.encoded_image_string for event in images[tag])
        assert first != second


# --- going on


def test_same_command_leaves_a_finished_run_alone(clone, run1, tmp_path):
    before = snapshot(run1)
    done = run_sh(clone, *SHORT, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("no_regularizer, run1: finished its 4 epochs already.")
    assert snapshot(run1) == before


def test_bad_key_ends_in_one_line_before_anything_is_written(clone):
    done = run_sh(clone, "--run-name", "bad", "max_epoch=5")
    assert done.returncode == 2
    assert done.stderr == "command line: max_epoch: unknown key (did you mean max_epochs?), given 5\n"
    assert done.stdout == ""
    assert not (clone / "training" / "no_regularizer" / "output" / "bad").exists()


def test_help_explains(clone):
    done = run_sh(clone, "--help")
    assert done.returncode == 0
    assert all(word in done.stdout for word in ("key=value", "--run-name", "--from-scratch", "example:"))


@pytest.mark.usefixtures("signals_restored")
def test_run_from_its_beginning_to_its_end(training, capsys):
    """Started, refused with another configuration, given more epochs, started over; another run beside it."""
    output = training / "no_regularizer" / "output"
    assert train("max_epochs=2") == 0
    before = snapshot(training)

    capsys.readouterr()
    assert train("max_epochs=2", "optimizer.learning_rate=0.5", "scheduler.type=cosine") == 2
    said = capsys.readouterr().err
    assert "optimizer.learning_rate: 0.001 in the run, 0.5 now" in said
    assert "scheduler.type: plateau in the run, cosine now" in said
    assert "--run-name" in said and "--from-scratch" in said
    assert train("max_epochs=1") == 2  # fewer epochs cannot be had from what there is
    assert train("max_epochs=3", "seed=1") == 2
    assert snapshot(training) == before

    assert train("max_epochs=5") == 0
    assert "continues after 2 epochs" in capsys.readouterr().out
    assert yaml.safe_load((output / "run1" / "config.yaml").read_text())["max_epochs"] == 5
    scalars, _ = events(output / "run1")
    assert {tag: steps(scalars[tag]) for tag in SCALARS} == {tag: [*range(5)] for tag in SCALARS}

    assert train("max_epochs=5", "--run-name", "straight") == 0  # continued or not, plateau has no memory of the end
    states = [torch.load(output / name / "checkpoints" / "last.ckpt") for name in ("run1", "straight")]
    assert equal(*(state["state_dict"] for state in states))
    assert equal(*(state["optimizer_states"] for state in states))

    beside = snapshot(output / "straight")
    assert train("max_epochs=1", "--from-scratch", "optimizer.learning_rate=0.01") == 0
    scalars, _ = events(output / "run1")
    assert steps(scalars[MONITOR]) == [0]
    assert scalars["learning_rate"][0][1] == pytest.approx(0.01)
    assert len(list((output / "run1").glob("*tfevents*"))) == 1
    assert snapshot(output / "straight") == beside


@pytest.mark.usefixtures("training", "signals_restored")
def test_run_that_has_not_reached_its_end_cannot_be_given_another(capsys):
    """A cosine depends on max_epochs, so only what has finished may be given more."""

    def stop(self, trainer, module):
        trainer.should_stop = module.epochs_done == 2

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.callbacks.Progress.on_train_epoch_end", stop)
        train("max_epochs=4")
    capsys.readouterr()
    assert train("max_epochs=6") == 2
    assert "max_epochs: 4 in the run, 6 now" in capsys.readouterr().err
    assert train("max_epochs=4") == 0


@pytest.mark.usefixtures("training", "signals_restored")
def test_each_epoch_shows_its_own_data_also_after_a_pause(monkeypatch):
    original, shown = ToyData.training_epoch, []
    monkeypatch.setattr(ToyData, "training_epoch", lambda self, epoch: shown.append(epoch) or original(self, epoch))
    assert train("max_epochs=3") == 0
    assert train("max_epochs=5") == 0
    assert shown == [0, 1, 2, 3, 4]


@pytest.mark.usefixtures("signals_restored")
def test_early_stopping_ends_a_run_and_the_same_command_leaves_it_alone(training, capsys):
    words = ("max_epochs=30", "early_stopping_patience=2", "optimizer.learning_rate=0.3")
    assert train(*words) == 0
    said = capsys.readouterr().out
    validation = [value for _, value in events(training / "no_regularizer" / "output" / "run1")[0][MONITOR]]
    best = validation.index(min(validation))
    assert len(validation) == best + 3 < 30
    how = f", after {best + 3} epochs, the last 2 of them without a better validation loss. "
    assert said.endswith(f"run1: stopped early{how}The run is in {training / 'no_regularizer' / 'output' / 'run1'}\n")
    before = snapshot(training)
    assert train(*words) == 0
    assert f"run1: stopped early already{how}Pictures and numbers: " in capsys.readouterr().out
    assert snapshot(training) == before


@pytest.mark.usefixtures("signals_restored")
def test_best_checkpoint_is_the_one_with_the_lowest_validation_loss(training):
    assert train("max_epochs=12", "optimizer.learning_rate=0.1") == 0
    folder = training / "no_regularizer" / "output" / "run1"
    validation = [value for _, value in events(folder)[0][MONITOR]]
    best = validation.index(min(validation))
    assert best < 11  # or this would say nothing
    assert torch.load(folder / "checkpoints" / "best.ckpt")["epochs_done"] == best + 1


# --- learning rates


@pytest.mark.usefixtures("signals_restored")
@pytest.mark.parametrize("scheduler", ["constant", "cosine", "plateau"])
def test_learning_rate_follows_its_schedule(training, scheduler):
    keys = ", patience: 1, factor: 0.5" if scheduler == "plateau" else ""
    assert train("max_epochs=12", "optimizer.learning_rate=0.1", f"scheduler={{type: {scheduler}{keys}}}") == 0
    scalars, _ = events(training / "no_regularizer" / "output" / "run1")
    rates = [value for _, value in scalars["learning_rate"]]
    if scheduler == "plateau":
        expected, best, bad = [0.1], math.inf, 0
        for _, loss in scalars[MONITOR]:
            bad = 0 if loss < best * (1 - 1e-4) else bad + 1  # torch's threshold for "better"
            best = min(best, loss) if bad == 0 else best
            expected.append(expected[-1] * (0.5 if bad > 1 else 1))
            bad = 0 if bad > 1 else bad
        expected.pop()
        assert 1 < len(set(expected)) < 12  # it fell, but not always
    else:
        expected = [0.1 * (0.5 * (1 + math.cos(math.pi * k / 12)) if scheduler == "cosine" else 1) for k in range(12)]
    assert rates == pytest.approx(expected, rel=1e-6)  # event files hold float32


# --- the data


@pytest.mark.parametrize("experiment", find_experiments())
def test_equal_seeds_see_equal_data_whatever_else_is_set(experiment):
    others = ["score_network.hidden_size=8", "optimizer.learning_rate=0.5", "max_epochs=3", "data.batch_size=7"]
    reference, data = (ToyData(configure(*which)) for which in (("no_regularizer",), (experiment, others)))
    torch.manual_seed(5)  # none of torch's global numbers enter
    assert equal(data.training_epoch(3), reference.training_epoch(3))
    assert equal(data.validation_set(), reference.validation_set())


def test_what_changes_from_epoch_to_epoch_and_what_does_not():
    data = ToyData(configure("no_regularizer"))
    first, again, second = (data.training_epoch(epoch) for epoch in (0, 0, 1))
    assert equal(first, again)
    assert not set(first.t.tolist()) & set(second.t.tolist()[:100])
    assert equal(data.validation_set(), data.validation_set())
    assert not equal(ToyData(configure("no_regularizer", ["seed=1"])).validation_set(), data.validation_set())


def test_frozen_noise_shows_the_same_set_in_another_order():
    data = ToyData(configure("no_regularizer", ["data.fresh_noise=false"]))

    def rows(epoch):
        x, t, target = data.training_epoch(epoch)
        return torch.cat([x.flatten(1), t[:, None], target.flatten(1)], 1).tolist()

    first, second = rows(0), rows(7)
    assert first != second
    assert sorted(first) == sorted(second)
    assert len(set(map(tuple, first))) == 8192


@pytest.mark.parametrize("fresh", ["true", "false"])
def test_number_of_times_restricts_t_to_so_many_equally_spaced(fresh):
    overrides = ["data.number_of_times=50", f"data.fresh_noise={fresh}"]
    t = ToyData(configure("no_regularizer", overrides)).training_epoch(3).t
    assert torch.equal(t.unique(), torch.linspace(0, 1, 50))


def test_times_are_uniform_and_fill_the_interval():
    t = ToyData(configure("no_regularizer")).training_epoch(3).t
    counts = torch.histc(t, 16, 0, 1)
    assert ((counts - 512) ** 2 / 512).sum() < 45  # chi square with 15 degrees of freedom: p = 8e-5


def test_target_belongs_to_the_noised_configuration():
    """E[target | x, t] = sigma grad log p (denoising score matching), so target - exact is orthogonal to any f(x, t).

    That holds for the law of the data as they are drawn, which is not symmetrised.
    """
    overrides = ["score_network.permutation_equivariant=false", "data.training_set_size=100000"]
    configuration = configure("no_regularizer", overrides)
    x, t, target = ToyData(configuration).training_epoch(2)
    assert ((x >= 0) & (x < 1)).all()
    exact = configuration.build_truth()(x, t)
    angle, t = 2 * math.pi * x, t[:, None, None]
    for f in (exact, angle.sin(), angle.cos(), (2 * angle).sin() * t, (t < 0.3) * angle.cos(), exact.flip(0)):
        product = ((target - exact) * f).sum((1, 2)).double()
        assert abs(product.mean()) < 4.5 * product.std() / math.sqrt(len(product))
    early = target[t.flatten() < 0.5]  # sigma < 0.015: nothing wraps, and the target is minus a unit normal
    assert early.square().mean().item() == pytest.approx(1, abs=4.5 * math.sqrt(2 / early.numel()))


@pytest.mark.parametrize(("equivariant", "floor"), [("true", 0.467), ("false", 0.435)])
def test_loss_of_the_exact_score_is_the_known_floor(equivariant, floor):
    overrides = [f"score_network.permutation_equivariant={equivariant}", "data.training_set_size=200000"]
    configuration = configure("no_regularizer", overrides)
    x, t, target = ToyData(configuration).training_epoch(0)
    losses = (configuration.build_truth()(x, t) - target).square().mean((1, 2))
    # Both floors are known to three decimals; 0.435 is the mean over t of sigma_d^2 / sigma_eff^2, without wrapping.
    assert losses.mean().item() == pytest.approx(floor, abs=1e-3 + 4.5 * losses.std().item() / math.sqrt(len(losses)))


# --- what is logged


def judged(configuration, network=None):
    """Return the scalars of one validation, and the module."""
    module = ScoreMatching(configuration)
    module.network = network or module.network
    module.log = lambda *_, **__: None
    module._trainer = SimpleNamespace(current_epoch=0)
    data = ToyData(configuration).validation_set()
    with torch.no_grad():
        module.validation_step(data, 0)
    return {name: float(value) for name, value in module.scalars.items()}, data, module


def test_exact_score_has_no_excess_loss_and_no_path_kl():
    configuration = configure("no_regularizer")
    scalars, _, _ = judged(configuration, configuration.build_truth())
    assert scalars["excess_loss/validation"] == scalars["path_kl_in_nats/validation"] == 0
    assert scalars[MONITOR] > 0.4  # the floor


def test_path_kl_is_rate_times_components_times_excess():
    """In expectation, since target - exact is orthogonal to any equivariant function of (x, t)."""
    configuration = configure("no_regularizer", ["data.validation_set_size=100000"])
    scalars, data, module = judged(configuration)
    with torch.no_grad():
        output, exact = module.network(data.x, data.t), module.truth(data.x, data.t)
    cross = 2 * ((output - exact) * (exact - data.target)).mean((1, 2))
    rate, components = configuration.noise_schedule.rate, 2
    # What is left is the cross term of the two squares: mean zero, so within 4.5 of its standard errors.
    tolerance = rate * components * 4.5 * cross.std().item() / math.sqrt(len(cross))
    expected = rate * components * scalars["excess_loss/validation"]
    assert scalars["path_kl_in_nats/validation"] == pytest.approx(expected, abs=tolerance)
    assert tolerance < 0.05 * expected  # or this would say nothing


def test_validation_loss_is_that_of_score_matching_whatever_the_regularizer():
    losses = {judged(configure(experiment))[0][MONITOR] for experiment in find_experiments()}
    assert len(losses) == 1


def test_data_of_the_seed_are_those_of_the_problem(problem):
    data = ToyData(configure("no_regularizer"))
    assert torch.equal(data.training_set, problem.sample(8192, keyed_generator(1234, "training data")))


# --- regularizers


@pytest.mark.usefixtures("signals_restored")
def test_regularizer_that_becomes_infinite_ends_the_run_with_its_name_and_the_last_good_checkpoint(training, capsys):
    words = "max_epochs=4", *SMALL, "regularizer.weight=1e300", "regularizer.burn_in_epochs=2"
    assert main(["fokker_planck_regularizer", *words]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("epoch 3: the regularizer fokker_planck (weight 1e+300) became infinite or not a number")
    best = training / "fokker_planck_regularizer" / "output" / "run1" / "checkpoints" / "best.ckpt"
    assert said.endswith(str(best))
    assert all(torch.isfinite(weight).all() for weight in torch.load(best, weights_only=True)["state_dict"].values())


@pytest.mark.usefixtures("training", "signals_restored")
@pytest.mark.parametrize("batch_size", [128, 512])  # four steps an epoch; one, so that the validation comes first
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["no_regularizer", "optimizer.learning_rate=1e25"], "the score-matching loss became"),
        (
            ["consistency_regularizer", "regularizer.weight=1e-30", "optimizer.learning_rate=1e25"],
            "the score-matching loss and the regularizer consistency (weight 1e-30) became",
        ),
        (
            ["consistency_regularizer", "regularizer.burn_in_epochs=1", "optimizer.learning_rate=1e25"],
            "the score-matching loss became",
        ),
    ],
)
def test_loss_that_becomes_infinite_is_named_and_no_other(capsys, words, said, batch_size):
    assert main([*words, "max_epochs=2", *SMALL, f"data.batch_size={batch_size}"]) == 2
    last_line = capsys.readouterr().err.splitlines()[-1]
    assert last_line.startswith(f"epoch 1: {said} infinite or not a number. Try a smaller learning rate")
    assert ("learning rate or weight." in last_line) == ("consistency (" in last_line)
    assert last_line.endswith("The last good checkpoint: none was saved yet")


@pytest.mark.usefixtures("signals_restored")
def test_gradient_that_is_no_number_is_noticed_in_the_loss_after_it(training, capsys, monkeypatch):
    def spoil(module):
        if module.current_epoch == 1:
            next(module.network.parameters()).register_hook(lambda gradient: gradient * math.nan)

    monkeypatch.setattr(ScoreMatching, "on_train_epoch_start", spoil)
    assert train("max_epochs=4") == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("epoch 2: the score-matching loss became infinite or not a number. Try a smaller learning")
    best = training / "no_regularizer" / "output" / "run1" / "checkpoints" / "best.ckpt"
    assert said.endswith(str(best)) and torch.load(best, weights_only=True)["epochs_done"] == 1


@pytest.mark.usefixtures("signals_restored")
@pytest.mark.parametrize("experiment", [name for name in find_experiments() if name != "no_regularizer"])
def test_regularizer_is_logged_raw_and_weighted_after_its_burn_in(training, experiment):
    words = "max_epochs=3", *SMALL, "regularizer.weight=0.25", "regularizer.burn_in_epochs=1"
    assert main([experiment, *words]) == 0
    scalars, _ = events(training / experiment / "output" / "run1")
    for phase in ("training", "validation"):
        raw, weighted, plain, total = (
            dict(scalars[f"{name}/{phase}"])
            for name in ("regularizer", "weighted_regularizer", "score_matching_loss", "total_loss")
        )
        assert list(raw) == [1, 2] and list(total) == [0, 1, 2]
        gap = steps(scalars.get("consistency_gap_squared/validation", []))
        assert gap == ([0] if experiment.startswith("consistency") else [])  # every tenth epoch
        assert total[0] == plain[0]
        for epoch in raw:
            assert weighted[epoch] == pytest.approx(0.25 * raw[epoch], rel=1e-6)
            assert total[epoch] == pytest.approx(plain[epoch] + weighted[epoch], rel=1e-6)


def test_second_process_in_a_run_is_refused_and_names_the_first(training, capsys, signals_restored):
    run = Run("no_regularizer")
    for options in ([], ["--from-scratch"]):
        with locked(run.lock_file):
            assert main(["no_regularizer", *SHORT, *options]) == 2
        expected = (
            f"{run.folder}: process {os.getpid()} on .* is training it; wait for it or stop it, or choose another"
        )
        assert re.fullmatch(expected + " --run-name\n", capsys.readouterr().err)
        assert not run.folder.exists()
    assert run.lock_file.exists()  # stale from here on: it is in nobody's way
    assert main(["no_regularizer", *SHORT[1:], "max_epochs=1"]) == 0
