"""What the tests share: the base case, its exact score, and other shapes of the problem."""

import pytest
import torch

from utils.noise_schedule import ExponentialSchedule
from utils.score_networks import AnalyticalScoreNetwork, Architecture, MLPScoreNetwork
from utils.toy_problem import ToyProblem

torch.set_num_threads(1)

BASE = [[0.25], [0.75]]
OTHERS = [[[0.4]], [[0.1], [0.45], [0.8]], [[0.2, 0.3], [0.7, 0.9]]]


def make_problem(coordinates=BASE, sigma_d=0.01, permutation_symmetric=True):
    return ToyProblem(
        equilibrium_relative_coordinates=coordinates, sigma_d=sigma_d, permutation_symmetric=permutation_symmetric
    )


def make_network(schedule, shape=(2, 1), permutation_equivariant=True, seed=0):
    architecture = Architecture(
        coordinates_embedding_size=32,
        sigma_embedding_size=16,
        time_embedding_size=16,
        hidden_size=64,
        number_of_hidden_layers=3,
        permutation_equivariant=permutation_equivariant,
    )
    torch.manual_seed(seed)
    return MLPScoreNetwork(architecture, schedule, shape)


@pytest.fixture
def problem():
    return make_problem()


@pytest.fixture
def schedule():
    return ExponentialSchedule(sigma_min=0.001, sigma_max=0.2)


@pytest.fixture
def truth(problem, schedule):
    return AnalyticalScoreNetwork(problem, schedule)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)
