"""metrics.json: what is written is read, what tells runs apart is in it, and what cannot be read is named."""

import dataclasses
import json
import math

import pytest
import torch
from analysed import SAMPLING, SMALL, leave_run

from utils.evaluation import registry
from utils.evaluation.estimates import Curve, Estimate
from utils.files import UserError
from utils.runs import store
from utils.runs.checkpoints import Loaded, load_run
from utils.runs.loading import configure
from utils.runs.run import Run
from utils.runs.store import Record, evaluate_run, evaluated, facts_of, what_was_trained

POSITIONS = "toy_problem.equilibrium_relative_coordinates"


def facts(experiment="fokker_planck_regularizer", name="run1", words=()):
    return facts_of(Loaded(Run(experiment, name), configure(experiment, words), None, None), SAMPLING)


@pytest.fixture
def record(tmp_path):
    share, infinite = Estimate(0.0, 0.0, 50, (0.0, 0.07)), Estimate(math.inf, None, 1)
    estimates = {"path_kl": Estimate(0.123456789, 0.01, 20_000), "stray_fraction": share, "unknown": infinite}
    curves = {"score_error_noised": Curve([0.25, 0.75], [1.5, None], [0.1, None])}
    return Record(facts(), estimates, {"ode_kl": "it diverges"}, curves, tmp_path)


def read(record):
    record.write({"sampling": 1.0, "metrics": 2.5})
    return Record.read(record.folder / "metrics.json")


@pytest.mark.parametrize("word", ["noise_schedule.sigma_max=0.3", f"{POSITIONS}=[[0.123456789], [0.99999999]]"])
def test_facts_are_read_as_they_were_written(record, word):
    """By them an analysis knows whether it was made of the same run; so no setting may lose a digit.

    The second has more digits than other numbers get; rounded, it would be refused.
    """
    record = dataclasses.replace(record, facts=facts(words=[word]))
    again = read(record)
    assert again.facts == record.facts | {"wall_clock_seconds": {"sampling": 1.0, "metrics": 2.5, "total": 3.5}}
    assert again.problem == configure("no_regularizer", [word]).problem and again.problem_in_words == word


def test_numbers_are_read_to_six_digits_of_json_that_explains_them(record):
    again = read(record)
    assert again.estimates == record.estimates | {"path_kl": Estimate(0.123457, 0.01, 20_000)}
    assert (again.curves, again.left_out, again.folder) == (record.curves, record.left_out, record.folder)
    text = (record.folder / "metrics.json").read_text(encoding="utf-8")
    assert "Infinity" not in text and "NaN" not in text  # which are no JSON
    metrics, about = json.loads(text)["metrics"], dataclasses.asdict(registry.METRICS["path_kl"])
    for name in ("label", "unit", "definition", "source", "better"):
        assert metrics["path_kl"][name] == about[name]
    assert metrics["unknown"] == {"value": "inf", "standard_error": None, "number_of_points": 1, "interval": None}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda content: b"", "Expecting value"),
        (lambda content: b"[" * 100_000, "maximum recursion depth exceeded"),
        (lambda content: [], ""),
        (lambda content: content | {"metrics": None}, ""),
        (lambda content: content | {"metrics": {"path_kl": {"value": 1.0}}}, "no 'standard_error'"),
        (lambda content: content | {"problem": {}}, "2 validation errors for Problem"),
    ],
)
def test_file_that_is_damaged_or_old_is_named_with_what_to_do(record, change, reason):
    read(record)
    path = record.folder / "metrics.json"
    with pytest.raises(UserError, match=r"metrics.json: not readable \(No such file or directory\)"):
        Record.read(path.parent / "other" / path.name)
    content = change(json.loads(path.read_bytes()))
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    with pytest.raises(UserError) as caught:
        Record.read(path)
    said = str(caught.value)
    assert said.startswith(f"{path}: not readable ({reason}") and said.isprintable()
    assert said.endswith("); analyse the run again, or remove it")


def test_runs_are_told_apart_by_what_was_trained():
    def trained(*overrides, experiment="fokker_planck_regularizer"):
        return what_was_trained(Run(experiment), configure(experiment, overrides))

    plain = trained()
    assert plain == plain | {"training_settings": "", "regularizer_settings": "", "weight": 0.03, "oracle": False}
    changed = trained("regularizer.weight=3", "regularizer.batch_size=5", "data.batch_size=8", "seed=9", "max_epochs=7")
    assert changed["training_settings"] == "data.batch_size=8, max_epochs=7"
    assert (changed["regularizer_settings"], changed["weight"]) == ("batch_size=5", 3)
    other_seed = trained("seed=9", "score_viewer.every_n_epochs=5", "accelerator=auto")
    assert other_seed["key"] != plain["key"]
    assert other_seed == plain | {"key": other_seed["key"], "training_seed": 9}  # so it is of the same group
    baseline = trained(experiment="no_regularizer")
    assert plain["baseline"] == baseline["baseline"] == baseline["group"] != plain["group"]
    assert baseline["weight"] is None and trained(experiment="analytical_regression_regularizer")["oracle"]


def test_run_is_evaluated_once_and_again_where_it_or_its_sampling_changed(training, monkeypatch):
    few = {name: registry.METRICS[name] for name in ("path_kl", "stray_fraction")}
    monkeypatch.setattr(registry, "METRICS", few)
    drawn, evaluate = [], store.evaluate_run
    monkeypatch.setattr(store, "evaluate_run", lambda *given: drawn.append(given) or evaluate(*given))
    run = leave_run("no_regularizer")
    record, again = evaluated(run, SAMPLING), evaluated(run, SAMPLING)
    assert len(drawn) == 1 and again.facts["key"] == record.facts["key"]
    assert again.estimates.keys() == few.keys()
    assert [record.facts[fact] for fact in ("epochs", "finished", "checkpoint")] == [4, True, "best.ckpt"]
    assert not facts_of(load_run(leave_run("no_regularizer", "stopped", epochs=2)), SAMPLING)["finished"]
    more = SAMPLING.model_copy(update={"number_of_samples": 70})
    assert evaluated(run, more).facts["sampling"]["number_of_samples"] == 70 and len(drawn) == 2
    configure("no_regularizer", [*SMALL, "max_epochs=4", "seed=9"]).write(run.configuration_file)
    assert evaluated(run, more).facts["training_seed"] == 9 and len(drawn) == 3


def test_epochs_are_those_of_the_weights_where_the_training_goes_on_meanwhile(training):
    loaded = load_run(run := leave_run("no_regularizer", epochs=2))
    torch.save(torch.load(run.best_checkpoint) | {"epochs_done": 4}, run.best_checkpoint)
    assert facts_of(loaded, SAMPLING)["epochs"] == 2


def test_network_whose_samples_are_no_numbers_is_left_out(tmp_path):
    configuration = configure("no_regularizer")
    network = configuration.build_network()
    torch.nn.init.constant_(network.layers[-1].bias, torch.nan)
    with pytest.raises(UserError) as caught:
        evaluate_run(Loaded(Run("no_regularizer"), configuration, network, None), SAMPLING, tmp_path)
    reason = "left out, since its network's output becomes infinite or not a number"
    assert str(caught.value) == f"no_regularizer, run1: {reason}" and list(tmp_path.iterdir()) == []
