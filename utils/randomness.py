"""Random numbers by key: equal keys give equal numbers, whatever else was drawn before.

Data, noise and regularizer each draw from a generator of their own, keyed by (seed, purpose, epoch). So a resumed run
sees what an uninterrupted one would have seen, and equal seeds see equal data in every experiment.
"""

import numpy as np
import torch


def keyed_generator(seed: int, purpose: str, epoch: int = 0) -> torch.Generator:
    """Return a CPU generator that depends on nothing but its key (numpy's SeedSequence mixes it)."""
    state = np.random.SeedSequence([seed, epoch, *purpose.encode()]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]))
