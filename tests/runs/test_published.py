"""The weights that come with the code, and what is said where they cannot be read."""

import json

import pytest
import torch
from conftest import ROOT

from training.train import main
from utils.files import UserError
from utils.runs import load_score_network
from utils.runs.checkpoints import load_run
from utils.runs.published import packed, published_file, read_published, unpacked, write_published
from utils.runs.run import ANALYTICAL, BASE_STUDY, Run


def test_every_experiment_of_the_study_has_published_weights_and_all_published_are_better_than_none():
    truth = load_score_network("analytical")
    t = torch.linspace(0, 1, 200)
    x = truth.problem.sample_noised(truth.schedule.sigma(t), torch.Generator().manual_seed(0))
    experiments = {entry["experiment"] for entry in read_published()} - {ANALYTICAL}
    assert experiments >= {*BASE_STUDY}
    for experiment in experiments:
        network = load_score_network(experiment, run_name="published")
        assert not network.training and next(network.parameters()).dtype == torch.float32
        with torch.no_grad():
            assert (network(x, t) - truth(x, t)).square().mean() < 0.1 * truth(x, t).square().mean()


def test_weights_survive_as_text_bit_for_bit():
    weights = torch.tensor([[1e-30, -0.0, 1 / 3], [torch.pi, -1e30, 2.0]])
    again = unpacked(json.loads(json.dumps(packed(weights))))
    assert torch.equal(again, weights) and torch.equal(again.signbit(), weights.signbit())


def test_what_cannot_be_read_is_named(training):
    with pytest.raises(UserError, match=r"published.json: not readable \(.*: No such file"):
        load_score_network("no_regularizer", "published")
    entries = json.loads((ROOT / "docs" / "live" / "published.json").read_text())["entries"]
    entry = next(entry for entry in entries if entry["experiment"] == "no_regularizer")
    write_published([entry])
    assert load_run(Run("no_regularizer", "published")).epochs == entry["epochs"]
    with pytest.raises(UserError, match="no weights of consistency_regularizer are published; of no_regularizer are"):
        load_score_network("consistency_regularizer", "published")
    name = "layers.0.bias"
    for weights in ({"shape": [64], "base64": "AAAA"}, {"shape": [64]}, {"shape": [64], "base64": "!"}, None):
        write_published([entry | {"weights": entry["weights"] | {name: weights}}])
        with pytest.raises(UserError, match="the weights of no_regularizer are not readable: "):
            load_score_network("no_regularizer", "published")
    write_published([entry | {"configuration": entry["configuration"] | {"seed": -1}}])
    with pytest.raises(UserError, match=r"published.json, no_regularizer: seed: should be .* given -1"):
        load_score_network("no_regularizer", "published")
    published_file().write_text(published_file().read_text().replace('"format_version": 1', '"format_version": 2'))
    with pytest.raises(UserError, match="it has format 2; this code reads 1"):
        read_published()


def test_no_training_takes_the_name_of_the_published_weights(training, capsys):
    assert main(["no_regularizer", "--run-name", "published"]) == 2
    assert "--run-name published names the weights that come with the code" in capsys.readouterr().err
