"""The weights that come with the code, and the message where there are none."""

import pytest
import torch

from utils.files import UserError
from utils.runs import load_score_network
from utils.runs.checkpoints import load_run
from utils.runs.published import read_published, write_published
from utils.runs.run import ANALYTICAL, BASE_STUDY, BASELINE, Run

PUBLISHED = read_published()  # before a test looks elsewhere


def test_every_experiment_of_the_study_has_published_weights_and_all_published_are_better_than_none():
    truth = load_score_network("analytical")
    t = torch.linspace(0, 1, 200)
    x = truth.problem.sample_noised(truth.schedule.sigma(t), torch.Generator().manual_seed(0))
    experiments = {entry["experiment"] for entry in PUBLISHED} - {ANALYTICAL}
    assert experiments >= {*BASE_STUDY}
    for experiment in experiments:
        network = load_score_network(experiment, run_name="published")
        assert not network.training and next(network.parameters()).dtype == torch.float32
        with torch.no_grad():
            assert (network(x, t) - truth(x, t)).square().mean() < 0.1 * truth(x, t).square().mean()


def test_what_is_not_published_is_named(training):
    write_published(entry for entry in PUBLISHED if entry["experiment"] == BASELINE)
    assert load_run(Run(BASELINE, "published")).epochs == 200
    with pytest.raises(UserError, match="no weights of consistency_regularizer are published; of no_regularizer are"):
        load_score_network("consistency_regularizer", "published")
