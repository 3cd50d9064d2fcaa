"""The toy data. The whole epoch is noised at once and handed over as one batch, which the Lightning module splits:
making 16 mini-batches one by one costs more than training on them."""

from functools import partial

import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from utils.randomness import keyed_generator
from utils.runs.configuration import Configuration
from utils.score.targets import Noised, add_noise


class ToyData(LightningDataModule):
    """Training and validation configurations of one seed; the same for every experiment with that seed."""

    def __init__(self, configuration: Configuration):
        super().__init__()
        self.data, self.target, self.seed = configuration.data, configuration.target, configuration.seed
        self.problem, self.schedule = configuration.toy_problem, configuration.noise_schedule
        self.training_set = configuration.training_set()

    def training_epoch(self, epoch: int) -> Noised:
        """Return the training data in the order and with the noise of one epoch."""
        noised = self.noise(self.training_set, "training noise", epoch if self.data.fresh_noise else 0)
        if self.target:
            generator = keyed_generator(self.seed, "target", epoch)
            rule = partial(self.target, problem=self.problem, schedule=self.schedule, generator=generator)
            noised = noised._replace(target=rule(noised, self.training_set))
        order = torch.randperm(len(self.training_set), generator=keyed_generator(self.seed, "order", epoch))
        return Noised(*(tensor[order] for tensor in noised))

    def validation_set(self) -> Noised:
        """Return the validation data, with data, noise and times fixed by the seed."""
        size = self.data.validation_set_size
        return self.noise(self.problem.sample(size, keyed_generator(self.seed, "validation data")), "validation noise")

    def train_dataloader(self) -> DataLoader:
        """Return what gives the current epoch."""
        return DataLoader([None], collate_fn=lambda _: self.training_epoch(self.trainer.current_epoch))

    def val_dataloader(self) -> DataLoader:
        """Return what gives the same validation set each time."""
        return DataLoader([self.validation_set()], batch_size=None)

    def noise(self, x_0: Tensor, purpose: str, epoch: int = 0) -> Noised:
        """Return configurations x_0 noised by the random numbers of one purpose and epoch."""
        generator = keyed_generator(self.seed, purpose, epoch)
        if self.data.number_of_times is None:
            t = torch.rand(len(x_0), generator=generator)
        else:
            times = torch.linspace(0, 1, self.data.number_of_times)
            t = times[torch.randint(len(times), (len(x_0),), generator=generator)]
        return add_noise(x_0, t, self.schedule, generator)
