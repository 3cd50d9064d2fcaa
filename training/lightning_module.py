"""Score matching, plus a regularizer: what is the same in every experiment.

The loss is E |N(x_t, t) - sigma grad log K(x_t | x_0)|^2, averaged over batch and components, with N the normalised
score and K the wrapped normal of width sigma(t). Its floor is not zero, since many x_0 lead to one x_t: the exact
score itself has a loss, and what a network has above it is the excess.
"""

import math
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from utils.evaluation.score_metrics import path_kl_density
from utils.files import UserError
from utils.randomness import keyed_generator
from utils.runs.configuration import Configuration
from utils.score.networks import ScoreNetwork
from utils.score.targets import Noised

PATH_KL = "path_kl_in_nats/validation"
DIAGNOSTICS_EVERY_N_EPOCHS = 10  # those of consistency cost as much as two mini-batches
MONITOR = "score_matching_loss/validation"  # chooses checkpoints, drives the learning rate and stops early, everywhere


class ScoreMatching(LightningModule):
    """Trains `network`; `truth` is the exact score, for validation metrics and for regularizers that are oracles."""

    def __init__(self, configuration: Configuration):
        super().__init__()
        # One Lightning step is one epoch: the loop over mini-batches below is plain torch, for Lightning's bookkeeping
        # around a step costs about as much as a step of this tiny network.
        self.automatic_optimization = False
        self.save_hyperparameters(configuration.as_dict(), logger=False)
        self.configuration = configuration
        self.network = configuration.build_network()
        decay = configuration.optimizer.ema_decay
        self.average = AveragedModel(self.network, multi_avg_fn=get_ema_multi_avg_fn(decay)) if decay else None
        self.truth, self.training_set = configuration.build_truth(), configuration.training_set()
        self.exact_on_validation_set: Tensor | None = None
        self.epochs_done = 0
        self.losses = torch.empty(0, 1)  # (mini-batch, 1 or 2) of an epoch: score matching, regularizer
        self.scalars: dict[str, Any] = {}  # numbers or tensors: what TensorBoard gets at the end of the epoch

    @property
    def judged(self) -> ScoreNetwork:
        """The network that is validated, drawn and used afterwards: the average of the weights, where one is taken."""
        return self.average.module if self.average else self.network  # type: ignore[return-value]

    def configure_optimizers(self):
        """Return AdamW; the learning-rate scheduler is stepped at the end of each epoch, below."""
        settings, options = self.configuration, self.configuration.optimizer
        rates = {"lr": options.learning_rate, "weight_decay": options.weight_decay}
        optimizer = torch.optim.AdamW(self.network.parameters(), **rates, fused=True)
        return [optimizer], [settings.scheduler.build(optimizer, settings.max_epochs)]

    def training_step(self, epoch_data: Noised, _: int) -> None:
        """Train on one epoch, mini-batch after mini-batch."""
        optimizer, settings, self.scalars = self.optimizers(), self.configuration, {}
        generator = keyed_generator(settings.seed, "regularizer", self.current_epoch)
        losses = []
        for parts in zip(*(tensor.split(settings.data.batch_size) for tensor in epoch_data), strict=True):
            batch = Noised(*parts)
            score_matching = (self.network(batch.x, batch.t) - batch.target).square().mean()
            penalty = self.penalty(self.network, batch, generator)
            loss = score_matching if penalty is None else score_matching + settings.regularizer.weight * penalty
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if self.average:
                self.average.update_parameters(self.network)
            found = [score_matching] if penalty is None else [score_matching, penalty]
            losses.append(len(batch.x) * torch.stack(found).detach())
        self.epochs_done, self.losses = self.current_epoch + 1, torch.stack(losses)
        self.record("training", *self.losses.sum(0) / len(epoch_data.x))

    def validation_step(self, data: Noised, _: int) -> None:
        """Evaluate the network on the validation set, by score matching and by its distance to the exact score."""
        if self.exact_on_validation_set is None:  # the set is fixed, so the exact score on it is as well
            self.exact_on_validation_set = self.truth(data.x, data.t)
        output, exact = self.judged(data.x, data.t), self.exact_on_validation_set
        loss = (output - data.target).square().mean()
        generator = keyed_generator(self.configuration.seed, "validation regularizer")
        self.record("validation", loss, self.penalty(self.judged, data, generator))
        if (regularizer := self.configuration.regularizer) and self.current_epoch % DIAGNOSTICS_EVERY_N_EPOCHS == 0:
            found = regularizer.diagnostics(self.judged, data.x, data.t, truth=self.truth, generator=generator)
            self.scalars |= {f"{name}/validation": value for name, value in found.items()}
        self.scalars["excess_loss/validation"] = loss - (exact - data.target).square().mean()
        self.scalars[PATH_KL] = path_kl_density(output - exact, data.t, self.network.schedule).mean()
        self.log(MONITOR, loss, logger=False)

    def penalty(self, network: ScoreNetwork, batch: Noised, generator: torch.Generator) -> Tensor | None:
        """Return the value of the regularizer without its weight, or None where there is none, or not yet."""
        regularizer = self.configuration.regularizer
        if regularizer is None or self.current_epoch < regularizer.burn_in_epochs:
            return None
        known = {"training_set": self.training_set, "truth": self.truth}
        return regularizer.on_batch(network, batch, **known, generator=generator)

    def record(self, phase: str, score_matching: Tensor, penalty: Tensor | None = None) -> None:
        """Keep an epoch's losses of one phase for TensorBoard."""
        found = {"score_matching_loss": score_matching, "total_loss": score_matching}
        if penalty is not None:
            weighted = self.configuration.regularizer.weight * penalty
            found |= {"regularizer": penalty, "weighted_regularizer": weighted, "total_loss": score_matching + weighted}
        self.scalars |= {f"{name}/{phase}": value for name, value in found.items()}

    def on_train_epoch_end(self) -> None:
        """Write the epoch's scalars, then let the learning rate follow the validation loss."""
        scheduler = self.lr_schedulers()
        self.scalars["learning_rate"] = scheduler.get_last_lr()[0]
        self.scalars = {name: float(value) for name, value in self.scalars.items()}
        self.logger.log_metrics(self.scalars, step=self.current_epoch)
        if not all(map(math.isfinite, self.scalars.values())):  # nothing good comes after it
            guilty = " and ".join(self.first_not_finite())
            advice = "a smaller learning rate" + (" or weight" if "regularizer" in guilty else "")
            good = self.trainer.checkpoint_callback.best_model_path or "none was saved yet"
            text = f"{guilty} became infinite or not a number. Try {advice}. The last good checkpoint: {good}"
            raise UserError(f"epoch {self.epochs_done}: {text}")
        if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            scheduler.step(self.scalars[MONITOR])
        else:
            scheduler.step()

    def first_not_finite(self) -> list[str]:
        """Return which loss was non-finite first; one mini-batch later all of them are."""
        weights, regularizer = {"the score-matching loss": 1.0}, self.configuration.regularizer
        if regularizer:
            weights[f"the regularizer {regularizer.type} (weight {regularizer.weight:g})"] = regularizer.weight
        validation = [self.scalars.get(f"{name}/validation", 0.0) for name in ("score_matching_loss", "regularizer")]
        for losses in [*self.losses, torch.tensor(validation)]:
            parts = zip(weights.items(), losses, strict=False)  # without the regularizer while it burns in
            if guilty := [name for (name, weight), loss in parts if not torch.isfinite(weight * loss)]:
                return guilty
        return [name for name, value in self.scalars.items() if not math.isfinite(value)]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the number of finished epochs, and the best loss also where the clone was moved since: Lightning
        forgets that loss where the path of the checkpoints is another, and would overwrite the best one."""
        self.epochs_done = checkpoint["epochs_done"]
        best = self.trainer.checkpoint_callback
        if state := checkpoint["callbacks"].get(best.state_key):
            path = str(Path(best.dirpath) / "best.ckpt")
            state |= {"dirpath": best.dirpath, "best_model_path": path, "kth_best_model_path": path}
            state["best_k_models"] = dict.fromkeys([path], state["best_model_score"])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the number of finished epochs: Lightning's own count depends on where in an epoch it is asked."""
        checkpoint["epochs_done"] = self.epochs_done
