"""Experiments: the configuration schema, and how a run is found, loaded and built.

The only file that reads YAML or checkpoints. A configuration is layered: base_config.yaml, the experiment's
specific_config.yaml, `key=value` pairs. Checkpoints are read as tensors and plain values only, so none can run code.
"""

import difflib
import io
import json
import math
import pickle
import re
import shlex
import sys
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

import torch
import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import Field, ValidationError, field_validator
from pydantic_core import PydanticCustomError
from torch import Tensor
from torch.optim import lr_scheduler

from utils.files import replacing, sentence
from utils.physics.laws import ToyProblem
from utils.physics.noise_schedule import NoiseSchedule
from utils.randomness import keyed_generator
from utils.score.networks import AnalyticalScoreNetwork, Architecture, MLPScoreNetwork, ScoreNetwork
from utils.score.regularizers import Regularizer
from utils.settings import Count, NonNegative, Positive, SetSize, Settings

ROOT = Path(__file__).resolve().parent.parent.parent
TRAINING = ROOT / "training"
NAME, TAG = r"\w[\w.-]*", r"\w[\w.,=+-]*"  # of a run or a sweep; of a run within a sweep
LONGEST_NAME = 200  # bytes of a run's name; file systems take 255, and a lock file adds to it
Schema = TypeVar("Schema", bound=Settings)
MOST_BYTES, MOST_VALUES, MOST_LEVELS, LONGEST_VALUE, MOST_REFERENCES = 1_000_000, 2_000, 20, 1_000, 10  # of YAML
FORMAT_VERSION = 1  # of checkpoints, metrics.json, samples.npz; raised by what an older code would misread
ANALYTICAL = "analytical"  # the experiment that needs no training: its network is the exact score


class UserError(Exception):
    """Something the person at the terminal can mend; its text says what, where and how."""


class BadCheckpoint(UserError):
    """A checkpoint that is damaged, or not one of its run."""


class Data(Settings):
    """How many configurations there are, and how they are noised."""

    training_set_size: SetSize
    validation_set_size: SetSize
    batch_size: Count
    fresh_noise: bool
    number_of_times: Annotated[int, Field(ge=2, le=10**6)] | None


class Optimizer(Settings):
    """AdamW."""

    learning_rate: Positive
    weight_decay: NonNegative


class PlateauScheduler(Settings):
    """Multiplies the learning rate by `factor` after `patience` epochs without a better validation loss."""

    type: Literal["plateau"]
    patience: Annotated[int, Field(ge=0)]
    factor: Annotated[float, Field(gt=0, lt=1)]

    def build(self, optimizer: torch.optim.Optimizer, max_epochs: int):
        """Return the learning-rate scheduler of torch; it is stepped once an epoch, with the validation loss."""
        return lr_scheduler.ReduceLROnPlateau(optimizer, patience=self.patience, factor=self.factor)


class CosineScheduler(Settings):
    """Lets the learning rate fall to zero over max_epochs along half a cosine."""

    type: Literal["cosine"]

    def build(self, optimizer: torch.optim.Optimizer, max_epochs: int):
        """Return the learning-rate scheduler of torch; it is stepped once an epoch."""
        return lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.5 * (1 + math.cos(math.pi * epoch / max_epochs)))


class ConstantScheduler(Settings):
    """Leaves the learning rate as it is."""

    type: Literal["constant"]

    def build(self, optimizer: torch.optim.Optimizer, max_epochs: int):
        """Return the learning-rate scheduler of torch; it is stepped once an epoch."""
        return lr_scheduler.LambdaLR(optimizer, lambda epoch: 1.0)


class ScoreViewer(Settings):
    """How often TensorBoard gets its pictures, in epochs."""

    every_n_epochs: Count
    field_every_n_epochs: Count


class Configuration(Settings):
    """All that defines a training: the schema of config.yaml."""

    seed: Annotated[int, Field(ge=0, lt=2**63)]
    score_network: Architecture
    toy_problem: ToyProblem
    noise_schedule: NoiseSchedule
    data: Data
    regularizer: Regularizer | None
    optimizer: Optimizer
    scheduler: Annotated[PlateauScheduler | CosineScheduler | ConstantScheduler, Field(discriminator="type")]
    max_epochs: Count
    early_stopping_patience: Count | None
    score_viewer: ScoreViewer
    accelerator: Literal["cpu", "cuda", "mps", "auto"]

    @field_validator("toy_problem")
    @classmethod
    def _truth_is_what_the_network_can_represent(cls, problem, info):
        network = info.data.get("score_network")
        if network and problem.permutation_symmetric != network.permutation_equivariant:
            text = "should equal score_network.permutation_equivariant"
            raise PydanticCustomError("disagreement", text, {"field": "permutation_symmetric"})
        return problem

    def build_truth(self) -> AnalyticalScoreNetwork:
        """Return the network that knows the exact score."""
        return AnalyticalScoreNetwork(self.toy_problem, self.noise_schedule)

    def build_network(self) -> MLPScoreNetwork:
        """Return an untrained network; its initial weights depend on the seed alone."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return MLPScoreNetwork(self.score_network, self.noise_schedule, self.toy_problem.shape)

    def training_set(self) -> Tensor:
        """Return the configurations that are trained on, (configuration, atom, dimension), before they are noised."""
        return self.toy_problem.sample(self.data.training_set_size, keyed_generator(self.seed, "training data"))

    @property
    def is_oracle(self) -> bool:
        """Whether the training is told the answer."""
        return self.regularizer is not None and self.regularizer.is_oracle

    def as_dict(self) -> dict[str, Any]:
        """Return nested dictionaries of plain values, as in config.yaml."""
        return self.model_dump(mode="json")

    def write(self, path: Path) -> None:
        """Write config.yaml."""
        with replacing(path) as temporary:
            temporary.write_text(yaml.safe_dump(self.as_dict(), sort_keys=False), encoding="utf-8")


def configure(experiment: str, overrides: Iterable[str] = (), origin: str = "command line") -> Configuration:
    """Return the merged and validated configuration of an experiment; raises UserError with one line per fault.

    `origin` is what a fault in the overrides is put down to.
    """
    layers = {"training/base_config.yaml": read_yaml(TRAINING / "base_config.yaml")}
    if experiment != ANALYTICAL:
        specific = _experiment_folder(experiment) / "specific_config.yaml"
        layers[specific.relative_to(ROOT).as_posix()] = read_yaml(specific)
    layers[origin] = _read_overrides(overrides, origin)
    return _validated(layers, Configuration)


def flat(block: dict, prefix: str = "") -> dict:
    """Return nested dictionaries as one, with dotted keys."""
    items = {}
    for key, value in block.items():
        items |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return items


def difference(before: Configuration, now: Configuration) -> dict[str, tuple[Any, Any]]:
    """Return every key whose value is not the same, with both values (None where it is missing)."""
    old, new = flat(before.as_dict()), flat(now.as_dict())
    return {key: (old.get(key), new.get(key)) for key in old | new if old.get(key) != new.get(key)}


def read_configuration(path: Path) -> Configuration:
    """Return the configuration in a run's config.yaml; raises UserError with one line per fault."""
    return read_settings(path, Configuration)


def read_settings(path: Path, schema: type[Schema]) -> Schema:
    """Return the settings in a YAML file; raises UserError with one line per fault."""
    return _validated({str(path): read_yaml(path)}, schema)


def _validated(layers: Mapping[str, dict], schema: type[Schema]) -> Schema:
    merged: dict = {}
    for layer in layers.values():
        merged = _merge(merged, layer)
    if str(merged).count("${") > MOST_REFERENCES:  # each may double what the others refer to
        guilty = max(layers, key=lambda name: str(layers[name]).count("${"))
        raise UserError(f"{guilty}: more than {MOST_REFERENCES} references ${{...}}; write the values out")
    try:
        merged = OmegaConf.to_container(OmegaConf.create(merged), resolve=True)
        return schema.model_validate(merged)
    except OmegaConfBaseException as error:
        key = error.full_key or ""
        reason = f"{_on_a_line(key)}: {_on_a_line(str(error).splitlines()[0])}"
        raise UserError(f"{_origin(layers, key.split('.'))}: {reason}") from error
    except ValidationError as error:
        raise UserError("\n".join(_describe(fault, merged, layers, schema) for fault in error.errors())) from error


def _merge(lower: dict, upper: dict) -> dict:
    """Merge deeply; a block that is given another `type` starts anew, for its old keys belong to the old type."""
    merged = dict(lower)
    for key, value in upper.items():
        below = lower.get(key)
        same_kind = (
            isinstance(below, dict) and isinstance(value, dict) and value.get("type") in (None, below.get("type"))
        )
        merged[key] = _merge(below, value) if same_kind else value
    return merged


class _NotRead(yaml.MarkedYAMLError):
    """YAML that no configuration needs, and that could run code or fill the memory."""


def _check_yaml(text: str) -> yaml.NodeEvent | None:
    """Return the parser's first event, which says what the YAML is, or None where it is empty.

    Raises _NotRead where it holds a tag or an alias, or is larger than a configuration can be.
    """
    depth, first = 0, None
    for number, event in enumerate(yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        faults = {
            "aliases (*name) are not read; write the value out": isinstance(event, yaml.AliasEvent),
            "tags (!name) are not read; write a plain value": getattr(event, "tag", None) not in (None, "!"),
            f"more than {MOST_VALUES} keys and values": number > MOST_VALUES,
            f"more than {MOST_LEVELS} levels": depth > MOST_LEVELS,
            f"a value of more than {LONGEST_VALUE} characters": len(getattr(event, "value", "")) > LONGEST_VALUE,
        }
        for fault, found in faults.items():
            if found:
                raise _NotRead(problem=fault, problem_mark=event.start_mark)
        first = first or (event if isinstance(event, yaml.NodeEvent) else None)
    return first


def read_yaml(path: Path) -> dict:
    """Return the `key: value` pairs of a file; raises UserError where it has none."""
    try:
        with path.open("rb") as file:
            raw = file.read(MOST_BYTES + 1)
        if len(raw) > MOST_BYTES:
            raise UserError(f"{path}: too large for a configuration: more than {MOST_BYTES // 1_000_000} MB")
        text = raw.decode("utf-8")
        first = _check_yaml(text)
        if not isinstance(first, yaml.MappingStartEvent):
            kind = "a list" if isinstance(first, yaml.SequenceStartEvent) else _on_a_line(getattr(first, "value", ""))
            fault = f"given {kind}" if first else "but is empty"
            raise UserError(f"{path}: should hold `key: value` pairs, {fault}")
        content = OmegaConf.to_container(OmegaConf.load(io.StringIO(text)), resolve=False)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"{path}{line}: {error.problem}") from error
    except (yaml.YAMLError, OmegaConfBaseException, UnicodeDecodeError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error).splitlines()[0]
        raise UserError(f"{path}: {reason}") from error
    return _with_words_as_keys(content)


def _with_words_as_keys(value):
    """Return nested values in which every key is text, as `1: 2` and `true: 2` are not: so they are found unknown."""
    if isinstance(value, dict):
        return {str(key): _with_words_as_keys(entry) for key, entry in value.items()}
    return [_with_words_as_keys(entry) for entry in value] if isinstance(value, list) else value


def _on_a_line(text: str) -> str:
    """Return text that was given, short, and without what would break a line or colour a terminal."""
    text = text if text.isprintable() else repr(text)[1:-1]
    return text if len(text) <= 100 else text[:97] + "..."


def _read_overrides(overrides: Iterable[str], origin: str) -> dict:
    layer: dict = {}
    seen: set[str] = set()
    for pair in overrides:
        key, equals, value = pair.partition("=")
        if not equals or not re.fullmatch(rf"\w+(\.\w+){{0,{MOST_LEVELS}}}", key):
            raise UserError(f"{origin}: {_on_a_line(pair)}: should be key=value, for example regularizer.weight=1e-3")
        try:
            _check_yaml(value)
            given = OmegaConf.to_container(OmegaConf.from_dotlist([pair]), resolve=False)
        except _NotRead as error:
            raise UserError(f"{origin}: {_on_a_line(key)}: {error.problem}") from error
        except (yaml.YAMLError, OmegaConfBaseException, UnicodeError) as error:
            raise UserError(f"{origin}: {_on_a_line(pair)}: the value is not valid YAML") from error
        given = _with_words_as_keys(given)
        for leaf in flat(given):  # also where one is written as a={b: 1}, the other as a.b=1
            if any(f"{leaf}.".startswith(f"{other}.") or f"{other}.".startswith(f"{leaf}.") for other in seen):
                raise UserError(f"{origin}: {_on_a_line(leaf)}: given twice")
        seen.update(flat(given))
        layer = _merge(layer, given)
    return layer


def _describe(fault: Mapping[str, Any], merged: dict, layers: Mapping[str, dict], schema: type[Settings]) -> str:
    """Return one line on one of pydantic's faults: origin, key as the user wrote it, what is wrong, what was given."""
    keys, given = _without_union_tags(fault["loc"], merged), fault["input"]
    text = fault["msg"].removeprefix("Value error, ").replace("Input should", "should")
    if fault["type"] == "disagreement":
        keys, given = [*keys, fault["ctx"]["field"]], given[fault["ctx"]["field"]]
    if fault["type"] == "missing":
        return f"{_origin(layers, keys[:-1])}: {_on_a_line('.'.join(keys))}: missing"
    if fault["type"] == "extra_forbidden":
        known = set(re.findall(r'"(\w+)": \{', json.dumps(schema.model_json_schema()))) - {keys[-1]}
        close = difflib.get_close_matches(keys[-1], known, n=1)
        text = "unknown key" + (f" (did you mean {close[0]}?)" if close else "")
    elif fault["type"] == "union_tag_invalid":
        keys, given, text = [*keys, "type"], given["type"], f"should be one of {fault['ctx']['expected_tags']}"
    elif fault["type"] == "union_tag_not_found":
        why = f"no {keys[-1]} is set whose keys could be changed, so give its type as well"
        return f"{_origin(layers, keys)}: {_on_a_line('.'.join([*keys, 'type']))}: missing; {why}"
    shown = f", given {_on_a_line(json.dumps(given, default=str))}" if keys else ""
    return f"{_origin(layers, keys)}: {_on_a_line('.'.join(keys)) + ': ' if keys else ''}{text}{shown}"


def _without_union_tags(location: tuple, merged: dict) -> list[str]:
    """Drop the tags that pydantic adds for a discriminated union: the user never wrote them."""
    keys, node = [], merged
    for part in location:
        if isinstance(node, dict) and part == node.get("type") and part not in node:
            continue
        keys.append(str(part))
        try:
            node = node[part]
        except (TypeError, KeyError, IndexError):
            node = None
    return keys


def _origin(layers: Mapping[str, dict], keys: list[str]) -> str:
    """Return the name of the uppermost of the layers that hold the longest part of the key."""

    def depth(layer):
        for number, key in enumerate(keys):
            if not isinstance(layer, dict) or key not in layer:
                return number
            layer = layer[key]
        return len(keys)

    depths = {name: depth(layer) for name, layer in layers.items()}
    return max(reversed(depths), key=depths.get) if any(depths.values()) else next(iter(layers))


@dataclass(frozen=True)
class Run:
    """One training of an experiment and where its files are; `analytical` has a single run and no files."""

    experiment: str
    name: str = "run1"

    def __post_init__(self):
        if self.experiment != ANALYTICAL:
            _experiment_folder(self.experiment)
        if not re.fullmatch(rf"{NAME}(/{TAG})?", self.name):
            text = "should be letters, digits, dots, dashes and underscores"
            raise UserError(f"run name {_on_a_line(repr(self.name))}: {text}")
        if any(len(part.encode()) > LONGEST_NAME for part in self.name.split("/")):
            raise UserError(f"run name {_on_a_line(repr(self.name))}: too long for the name of a folder")

    @property
    def sweep(self) -> str | None:
        """The sweep that the run belongs to; its name is then sweep/tag, and its folder is in that of the sweep."""
        return self.name.rpartition("/")[0] or None

    @property
    def folder(self) -> Path:
        """The folder of everything that the run writes."""
        return TRAINING / self.experiment / "output" / self.name

    @property
    def configuration_file(self) -> Path:
        """The merged configuration that the run was started with."""
        return self.folder / "config.yaml"

    @property
    def best_checkpoint(self) -> Path:
        """The weights with the lowest validation score-matching loss."""
        return self.folder / "checkpoints" / "best.ckpt"

    @property
    def last_checkpoint(self) -> Path:
        """The state from which the training goes on."""
        return self.folder / "checkpoints" / "last.ckpt"

    @property
    def lock_file(self) -> Path:
        """What a training holds while it writes; beside the folder, which may be removed under it."""
        return self.folder.with_name(f".{self.folder.name}.lock")

    @property
    def title(self) -> str:
        """What the run is called in a message."""
        return f"{self.experiment}, {self.name}"

    @property
    def curves_file(self) -> Path:
        """The losses of every epoch, curves.csv."""
        return self.folder / "curves.csv"

    @property
    def command(self) -> str:
        """The command that starts or continues this run."""
        option = "" if self.name == "run1" else f" --run-name {self.name}"
        script = shlex.quote(f"{TRAINING.relative_to(ROOT)}/{self.experiment}/run.sh")
        return f"bash {script}{option}"


def find_experiments() -> list[str]:
    """Return the names of the experiments under training/, the baseline first."""
    names = {path.parent.name for path in TRAINING.glob("*/specific_config.yaml")}
    return sorted(names, key=lambda name: (name != "no_regularizer", name))


def find_runs(sweep: str, experiments: Iterable[str] | None = None) -> list[Run]:
    """Return the runs of a sweep that were begun, of these experiments or of all."""
    if not re.fullmatch(NAME, sweep):
        raise UserError(f"sweep {sweep!r}: should be letters, digits, dots, dashes and underscores")
    found = []
    for experiment in experiments or find_experiments():
        folder = _experiment_folder(experiment) / "output" / sweep
        found += [Run(experiment, f"{sweep}/{path.parent.name}") for path in sorted(folder.glob("*/config.yaml"))]
    return found


def _experiment_folder(experiment: str) -> Path:
    if experiment not in find_experiments():
        close = difflib.get_close_matches(experiment, find_experiments(), n=1)
        hint = f"did you mean {close[0]}?" if close else f"there are: {', '.join(find_experiments())}"
        raise UserError(f"no experiment is called {_on_a_line(repr(experiment))}; {hint}")
    return TRAINING / experiment


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return a checkpoint's content on the CPU.

    Raises BadCheckpoint where it is missing, damaged or not plain tensors and values, UserError where it is too new.
    """
    try:
        with zipfile.ZipFile(path) as file:
            if damaged := file.testzip():  # torch.load compares no check sums
                raise zipfile.BadZipFile(f"its record {damaged} is damaged")
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise BadCheckpoint(f"{path}: missing") from error
    except pickle.UnpicklingError as error:  # torch's own text recommends to run it
        text = "it holds other things than tensors and plain values, which could run code; nothing of it was run"
        raise BadCheckpoint(f"{path}: not a readable checkpoint: {text}") from error
    except Exception as error:  # damaged bytes lead the unpickler to errors of any kind
        reason = next(iter(sentence(error).splitlines()), type(error).__name__)
        raise BadCheckpoint(f"{path}: not a readable checkpoint: {reason}") from error
    state = checkpoint.get("state_dict") if isinstance(checkpoint, dict) else None
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        raise BadCheckpoint(f"{path}: not a checkpoint of a training: it holds no state_dict")
    version = checkpoint.get("format_version", 1)  # the first had no number
    if version not in range(1, FORMAT_VERSION + 1):
        text = f"it has format {version}, and this version of the code reads formats up to {FORMAT_VERSION}"
        raise UserError(f"{path}: written by a newer version of the code: {text}")
    return checkpoint


def network_of(checkpoint: dict[str, Any], path: Path, configuration: Configuration) -> ScoreNetwork:
    """Return the network with the weights of a checkpoint; raises BadCheckpoint where they are not of this run."""
    network = configuration.build_network()
    try:
        weights = {key.removeprefix("network."): value for key, value in checkpoint["state_dict"].items()}
        network.load_state_dict(weights)
    except (RuntimeError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise BadCheckpoint(f"{path}: not of the network that its run's config.yaml describes: {reason}") from error
    before, now = flat(checkpoint.get("hyper_parameters", {})), flat(configuration.as_dict())
    others = [key for key in before.keys() & now.keys() if before[key] != now[key] and key != "max_epochs"]
    if others:
        differences = ", ".join(f"{key} is {before[key]} in it and {now[key]} there" for key in sorted(others))
        raise BadCheckpoint(f"{path}: not of the run that config.yaml describes: {differences}")
    return network


class Loaded(NamedTuple):
    """A run's configuration, its network in evaluation mode, and the checkpoint that this is from, if any."""

    configuration: Configuration
    network: ScoreNetwork
    checkpoint: Path | None


def load_run(run: Run, fall_back: bool = False) -> Loaded:
    """Return a run with the network of its best checkpoint; raises UserError where there is none.

    Where the best one is damaged or missing and the last one is whole, `fall_back` takes the last one, and says so.
    """
    if run.experiment == ANALYTICAL:
        configuration = configure(ANALYTICAL)
        return Loaded(configuration, configuration.build_truth().eval(), None)
    if not run.best_checkpoint.exists() and not run.last_checkpoint.exists():
        raise UserError(f"{run.experiment}, {run.name}: not trained yet; train it with: {run.command}")
    configuration = read_configuration(run.configuration_file)
    path = run.best_checkpoint
    try:
        network = network_of(read_checkpoint(path), path, configuration)
    except BadCheckpoint as fault:
        if not fall_back or not run.last_checkpoint.exists():
            raise
        path = run.last_checkpoint
        try:
            network = network_of(read_checkpoint(path), path, configuration)
        except UserError as other:
            raise UserError(f"{fault}\n{other}") from fault
        text = f"taking {path.name} beside it, the weights of the last epoch instead of the best"
        print(f"{fault}; {text}", file=sys.stderr)
    for name, weights in network.named_parameters():
        if not torch.isfinite(weights).all():
            raise UserError(f"{path}: the weights {name} are infinite or not a number")
    return Loaded(configuration, network.eval(), path)


def load_score_network(experiment_name: str, run_name: str = "run1") -> ScoreNetwork:
    """Return the network of a run's best checkpoint in evaluation mode, on the CPU, in float32.

    "analytical" is the exact score of base_config.yaml and needs no run. Raises UserError where there is no run.
    """
    return load_run(Run(experiment_name, run_name)).network
