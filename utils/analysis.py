"""What is made of one experiment: samples, pictures, a video and numbers, in a folder of its own."""

import csv
import json
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from utils import figures, metrics, videos, views
from utils.experiments import ANALYTICAL, ROOT, Configuration, Run, load_run
from utils.files import replacing
from utils.noise_schedule import time_grid
from utils.randomness import keyed_generator
from utils.samplers import predictor_corrector
from utils.score_networks import ScoreNetwork

CHUNK = 2_000  # samples carried together: larger ones leave the processor's cache and take half as long again
VIDEO_FRAMES = 61
FRAMES_PER_SECOND = 10
MARGINAL_TIMES = (0.0, 0.25, 0.5, 0.75, 1.0)
DENSITY_POINTS = 200  # per axis; at t = 0 a mode is four of them wide


@dataclass(frozen=True)
class Sampling:
    """How samples are drawn; the same for every experiment that is compared."""

    number_of_samples: int
    time_steps: int
    corrector_steps: int
    start: str
    seed: int

    def draw(self, network: ScoreNetwork, configuration: Configuration) -> Tensor:
        """Return samples of the reverse diffusion, (sample, atom, dimension)."""
        problem, generator = configuration.toy_problem, keyed_generator(self.seed, "sampling")
        times, chunks = time_grid(self.time_steps), []
        with tqdm(total=self.number_of_samples, desc="  samples", unit="", leave=False) as bar:
            for start in range(0, self.number_of_samples, CHUNK):
                n = min(CHUNK, self.number_of_samples - start)
                if self.start == "exact":
                    x = problem.sample_noised(network.schedule.sigma(torch.ones(n)), generator)
                else:
                    x = torch.rand(n, *problem.shape, generator=generator)
                chunks.append(
                    predictor_corrector(
                        network, x, times, corrector_steps=self.corrector_steps, generator=generator
                    )
                )
                bar.update(n)
        return torch.cat(chunks)

    @property
    def network_evaluations(self) -> int:
        """How often the network is evaluated for one sample."""
        return self.time_steps * (1 + self.corrector_steps)
