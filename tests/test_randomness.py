"""Random numbers by key."""

import itertools

import torch

from utils.randomness import keyed_generator


def draw(*key):
    return torch.rand(4, generator=keyed_generator(*key)).tolist()


def test_equal_keys_give_equal_numbers_whatever_was_drawn_before():
    state = torch.get_rng_state()
    first = draw(1234, "noise", 7)
    assert torch.equal(torch.get_rng_state(), state)  # nor does it draw from the global generator
    torch.rand(3)
    keyed_generator(1234, "noise", 7).seed()
    assert draw(1234, "noise", 7) == first
    assert draw(1234, "noise") == draw(1234, "noise", 0)


def test_any_part_of_the_key_changes_the_numbers():
    for keys in (
        [(1234, "noise", 7), (1235, "noise", 7), (1234, "noisf", 7), (1234, "noise", 8)],
        [(1, "a", 2), (2, "a", 1)],  # a sum of seed and epoch would mix these up
        [(seed, "noise", epoch) for seed in range(20) for epoch in range(20)],
        [(2**32, "noise", 0), (0, "noise", 0), (0, "noise", 1), (1, "noise", 0)],  # a seed wider than a word
    ):
        drawn = [draw(*key) for key in keys]
        assert all(one != other for one, other in itertools.combinations(drawn, 2))
