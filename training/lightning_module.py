"""Score matching, plus a regularizer: what is the same in every experiment.

The loss is E |N(x_t, t) - sigma grad log K(x_t | x_0)|^2, averaged over batch and components, with N the normalised
score and K the wrapped normal law of width sigma(t). Its floor is not zero, since many x_0 lead to one x_t: the exact
score itself has a loss, and what a network has above it is the excess.
"""

from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor

from training.data_module import Noised
from utils.experiments import Configuration, UserError
from utils.metrics import path_kl_density

MONITOR = "score_matching_loss/validation"  # chooses checkpoints, drives the learning rate and stops early, everywhere


def mean_square(difference: Tensor) -> Tensor:
    """Return the mean over batch and components."""
    return difference.square().mean()


class ScoreMatching(LightningModule):
    """Trains `network`; `truth` is the exact score, which judges but does not teach."""

    def __init__(self, configuration: Configuration):
        super().__init__()
        # One Lightning step is one epoch: the loop over mini-batches below is plain torch, for Lightning's bookkeeping
        # around a step costs about as much as a step of this tiny network.
        self.automatic_optimization = False
        self.save_hyperparameters(configuration.as_dict(), logger=False)
        self.configuration = configuration
        self.network = configuration.build_network()
        self.truth = configuration.build_truth()
        self.exact_on_validation_set: Tensor | None = None
        self.epochs_done = 0
        self.scalars: dict[str, Tensor] = {}  # what TensorBoard gets at the end of the epoch

    def configure_optimizers(self):
        """Return AdamW; the learning-rate scheduler is stepped at the end of each epoch, below."""
        settings = self.configuration
        optimizer = torch.optim.AdamW(
            self.network.parameters(),
            lr=settings.optimizer.learning_rate,
            weight_decay=settings.optimizer.weight_decay,
            fused=True,
        )
        return [optimizer], [settings.scheduler.build(optimizer, settings.max_epochs)]

    def training_step(self, epoch_data: Noised, _: int) -> None:
        """Train on one epoch, mini-batch after mini-batch."""
        optimizer = self.optimizers()
        losses = []
        size = self.configuration.data.batch_size
        for x, t, target in zip(*(tensor.split(size) for tensor in epoch_data), strict=True):
            loss = mean_square(self.network(x, t) - target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach() * len(x))
        self.epochs_done = self.current_epoch + 1
        self.scalars["score_matching_loss/training"] = torch.stack(losses).sum() / len(epoch_data.x)

    def validation_step(self, data: Noised, _: int) -> None:
        """Judge the network on the validation set, by score matching and by its distance to the exact score."""
        if self.exact_on_validation_set is None:  # the set is fixed, so the exact score on it is as well
            self.exact_on_validation_set = self.truth(data.x, data.t)
        output, exact = self.network(data.x, data.t), self.exact_on_validation_set
        loss = mean_square(output - data.target)
        path_kl = path_kl_density(output - exact, data.t, self.network.schedule).mean()
        self.scalars[MONITOR] = loss
        self.scalars["excess_loss/validation"] = loss - mean_square(exact - data.target)
        self.scalars["path_kl_in_nats/validation"] = path_kl
        self.log(MONITOR, loss, logger=False)

    def on_train_epoch_end(self) -> None:
        """Write the epoch's scalars, then let the learning rate follow the validation loss."""
        scheduler = self.lr_schedulers()
        self.scalars["learning_rate"] = torch.tensor(scheduler.get_last_lr()[0])
        self.scalars = {name: float(value) for name, value in self.scalars.items()}
        self.logger.log_metrics(self.scalars, step=self.current_epoch)
        if not all(map(torch.isfinite, map(torch.tensor, self.scalars.values()))):
            raise UserError(f"epoch {self.current_epoch}: the training diverged: {self.scalars}")
        if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            scheduler.step(self.scalars[MONITOR])
        else:
            scheduler.step()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the number of finished epochs: Lightning's own count depends on where in an epoch it is asked."""
        checkpoint["epochs_done"] = self.epochs_done
