"""Gaussian mixtures of several shapes. No two modes overlap, and the weights do not sum to 1."""

import pytest
from conftest import BASE, OTHERS, make_problem

from utils.physics.laws import GaussianMixture

MIXTURES = [  # a Gaussian is (weight, width, positions)
    [(1.0, 0.02, [[0.3]]), (2.5, 0.04, [[0.8]])],
    [(7.0, 0.01, [[0.25], [0.75]]), (2.0, 0.03, [[0.1], [0.45]]), (1.0, 0.02, [[0.45], [0.6]])],
    [(1.0, 0.01, [[0.1], [0.45], [0.8]]), (3.0, 0.02, [[0.25], [0.6], [0.95]])],
    [(1.0, 0.01, [[0.2, 0.3], [0.7, 0.9]]), (0.5, 0.03, [[0.6, 0.2], [0.1, 0.5]])],
]


def make_mixture(gaussians=MIXTURES[1], permutation_symmetric=True):
    keys = ("weight", "sigma_d", "equilibrium_relative_coordinates")
    blocks = [dict(zip(keys, gaussian, strict=True)) for gaussian in gaussians]
    return GaussianMixture(gaussians=blocks, permutation_symmetric=permutation_symmetric)


def for_laws(where=lambda law: True):
    """Run a test with each law, one Gaussian or several, symmetric or not, of which `where` is true."""
    both = (True, False)
    laws = [make_problem(form, permutation_symmetric=symmetric) for form in [BASE, *OTHERS] for symmetric in both]
    laws += [make_mixture(form, symmetric) for form in MIXTURES for symmetric in both]
    names = "{0.type}-{0.shape}-{0.permutation_symmetric}".format
    return pytest.mark.parametrize("law", [*filter(where, laws)], ids=names)
