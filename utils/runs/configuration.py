"""The schema of a run's configuration: what YAML files and the command line may set."""

import hashlib
import json
import math
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
import yaml
from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError
from torch import Tensor
from torch.optim import Optimizer, lr_scheduler

from utils.files import write_text
from utils.physics.laws import Law
from utils.physics.noise_schedule import NoiseSchedule
from utils.randomness import keyed_generator
from utils.score.networks import MLP, AnalyticalScoreNetwork, Architecture, Energy, Perceptron
from utils.score.regularizers import Regularizer
from utils.score.targets import Target
from utils.settings import AnySubclass, Count, NonNegative, Positive, SetSize, Settings

INCIDENTAL = ("score_viewer", "accelerator")  # no part of what is trained


class Data(Settings):
    training_set_size: SetSize
    validation_set_size: SetSize
    batch_size: Count
    fresh_noise: bool
    number_of_times: Annotated[int, Field(ge=2, le=10**6)] | None


class AdamW(Settings):
    learning_rate: Positive
    weight_decay: NonNegative
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None  # of an average of the weights, for each mini-batch


class LearningRateSchedule(Settings):
    """How the learning rate changes from epoch to epoch."""

    type: str
    depends_on_max_epochs: ClassVar[bool] = False  # whether a training of more epochs differs from its first epoch on

    def build(self, optimizer: Optimizer, max_epochs: int) -> lr_scheduler.LRScheduler:
        """Return torch's scheduler; it is stepped once an epoch, one on a plateau with the validation loss."""
        raise NotImplementedError


class Plateau(LearningRateSchedule):
    """Multiplies the learning rate by `factor` after `patience` epochs without a better validation loss."""

    type: Literal["plateau"]
    patience: Annotated[int, Field(ge=0)]
    factor: Annotated[float, Field(gt=0, lt=1)]

    def build(self, optimizer: Optimizer, max_epochs: int) -> lr_scheduler.LRScheduler:
        return lr_scheduler.ReduceLROnPlateau(optimizer, patience=self.patience, factor=self.factor)


class Cosine(LearningRateSchedule):
    """Lets the learning rate fall to zero over max_epochs along half a cosine."""

    type: Literal["cosine"]
    depends_on_max_epochs = True

    def build(self, optimizer: Optimizer, max_epochs: int) -> lr_scheduler.LRScheduler:
        return lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.5 * (1 + math.cos(math.pi * epoch / max_epochs)))


class Constant(LearningRateSchedule):
    type: Literal["constant"]

    def build(self, optimizer: Optimizer, max_epochs: int) -> lr_scheduler.LRScheduler:
        return lr_scheduler.LambdaLR(optimizer, lambda epoch: 1.0)


class ScoreViewer(Settings):
    every_n_epochs: Count  # between TensorBoard's pictures of the score along a line
    field_every_n_epochs: Count


class Problem(Settings):
    """What is to be learned: the law of the data, and how it is noised."""

    toy_problem: Annotated[Law, AnySubclass(default="gaussian")]  # runs made before there were others name none
    noise_schedule: Annotated[NoiseSchedule, AnySubclass()]

    def build_truth(self) -> AnalyticalScoreNetwork:
        return AnalyticalScoreNetwork(self.toy_problem, self.noise_schedule)


class Configuration(Problem):
    """All that defines a training: the schema of config.yaml."""

    seed: Annotated[int, Field(ge=0, lt=2**63)]
    score_network: Annotated[Architecture, AnySubclass(default="mlp")]  # runs made before there were others name none
    data: Data
    target: Annotated[Target, AnySubclass()] | None = None  # what score matching compares with; null: T
    regularizer: Annotated[Regularizer, AnySubclass()] | None
    optimizer: AdamW
    scheduler: Annotated[LearningRateSchedule, AnySubclass()]
    max_epochs: Count
    early_stopping_patience: Count | None
    score_viewer: ScoreViewer
    accelerator: Literal["cpu", "cuda", "mps", "auto"]

    @property
    def baseline(self) -> "Configuration":
        """The same training by score matching alone, of the network whose output is the score."""
        network = MLP.model_validate(self.score_network.model_dump(include={*Architecture.model_fields}))
        return self.model_copy(update={"regularizer": None, "target": None, "score_network": network})

    @property
    def judges_last_weights(self) -> bool:
        """Whether best.ckpt holds the last weights: where the learning rate falls to zero, or weights are averaged.

        Else it holds those with the lowest validation loss, among which chance chooses as well."""
        return self.scheduler.depends_on_max_epochs or self.optimizer.ema_decay is not None

    uses_forces = property(lambda self: self.target is not None and self.target.uses_forces)
    is_oracle = property(lambda self: self.regularizer is not None and self.regularizer.is_oracle)
    problem = property(lambda self: Problem(toy_problem=self.toy_problem, noise_schedule=self.noise_schedule))

    @model_validator(mode="before")
    @classmethod
    def _truth_follows_the_network(cls, content: Any) -> Any:
        """Where toy_problem.permutation_symmetric is not given, it is what the network can represent."""
        try:
            network = content.get("score_network")  # its own fault is named by what comes next, and that is enough
            symmetric = not isinstance(network, dict) or network.get("permutation_equivariant") is not False
            return content | {"toy_problem": {"permutation_symmetric": symmetric} | content["toy_problem"]}
        except (AttributeError, TypeError, KeyError):
            return content  # toy_problem is missing, or a block is of a wrong type

    @field_validator("regularizer")
    @classmethod
    def _has_the_network_it_needs(cls, regularizer, info):
        network = info.data.get("score_network")
        if regularizer and network and regularizer.needs_log_density and not isinstance(network, Energy):
            where = {"keys": ["score_network", "type"], "given": network.type}
            raise PydanticCustomError("disagreement", f"should be energy for {regularizer.type}", where)
        return regularizer

    @field_validator("score_network")
    @classmethod
    def _truth_is_what_the_network_can_represent(cls, network, info):
        problem = info.data.get("toy_problem")
        if problem and problem.permutation_symmetric != network.permutation_equivariant:
            where = {"keys": ["toy_problem", "permutation_symmetric"], "given": problem.permutation_symmetric}
            raise PydanticCustomError("disagreement", "should equal score_network.permutation_equivariant", where)
        return network

    def build_network(self) -> Perceptron:
        """Return an untrained network; its initial weights depend on the seed alone."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return self.score_network.build(self.noise_schedule, self.toy_problem.shape)

    def training_set(self) -> Tensor:
        """Return the configurations that are trained on, (configuration, atom, dimension), before they are noised."""
        return self.toy_problem.sample(self.data.training_set_size, keyed_generator(self.seed, "training data"))

    def as_dict(self) -> dict[str, Any]:
        """Return nested dictionaries of plain values, as in config.yaml."""
        return self.model_dump(mode="json")

    def key(self, *left_out: str) -> str:
        """Return a hash, 16 hexadecimal digits, of what is trained without these blocks. Settings that have their
        default value do not enter, so a new setting changes no old key."""
        content = self.model_dump(mode="json", exclude_defaults=True, exclude={*INCIDENTAL, *left_out})
        for name in content:
            kind = getattr(getattr(self, name), "type", None)
            if kind and kind != MLP.model_fields["type"].default:  # keys are older than other networks
                content[name]["type"] = kind
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    def write(self, path: Path) -> None:
        write_text(path, yaml.safe_dump(self.as_dict(), sort_keys=False))


def flat(block: dict, prefix: str = "") -> dict:
    """Return nested dictionaries as one, with dotted keys."""
    items: dict = {}
    for key, value in block.items():
        items |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return items


def difference(before: Configuration, now: Configuration) -> dict[str, tuple[Any, Any]]:
    """Return every key whose value is not the same, with both values (None where it is missing)."""
    old, new = flat(before.as_dict()), flat(now.as_dict())
    return {key: (old.get(key), new.get(key)) for key in old | new if old.get(key) != new.get(key)}
