"""The schema of a configuration: what follows from what, and which settings tell trainings apart."""

import json
from typing import Annotated, Literal

import pytest
import torch
import yaml
from pydantic import ValidationError

from utils.runs.configuration import Configuration, Data, difference, flat
from utils.runs.loading import configure, read_configuration
from utils.runs.run import ANALYTICAL, find_experiments
from utils.score.networks import Architecture
from utils.settings import AnySubclass, Settings

POSITIONS = "toy_problem.equilibrium_relative_coordinates"
BASE = configure("fokker_planck_regularizer")


def key(*overrides):
    return configure("fokker_planck_regularizer", overrides).key()


def test_type_chooses_any_subclass_and_settings_are_frozen():
    class Shape(Settings):
        type: str

    class Square(Shape):
        type: Literal["square"]

    class Rounded(Square):
        type: Literal["rounded"]

    class Drawing(Settings):
        shape: Annotated[Shape, AnySubclass()]

    drawing = Drawing.model_validate({"shape": {"type": "rounded"}})
    assert type(drawing.shape) is Rounded
    with pytest.raises(ValidationError, match="frozen"):
        drawing.shape = Square(type="square")


def test_configuration_written_is_the_one_read(tmp_path):
    path, words = tmp_path / "config.yaml", ("optimizer.learning_rate=1.2345678901234567e-5", f"{POSITIONS}=[[0.1]]")
    for experiment in find_experiments():
        configuration = configure(experiment, words)
        configuration.write(path)
        assert read_configuration(path) == configuration


def test_run_begun_before_there_were_other_laws_and_networks_is_known_as_the_same(tmp_path):
    class Older(Configuration):
        score_network: Architecture  # which has no type

    content = BASE.as_dict()
    del content["toy_problem"]["type"], content["score_network"]["type"]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(content))
    assert read_configuration(tmp_path / "config.yaml") == BASE and Older.model_validate(content).key() == BASE.key()


@pytest.mark.parametrize(("word", "switch"), [("true", True), ("false", False)])
def test_true_score_is_symmetric_where_the_network_is(tmp_path, word, switch):
    words = f"score_network.permutation_equivariant={word}", f"toy_problem.permutation_symmetric={word}"
    configuration = configure("no_regularizer", words)
    assert configuration == configure("no_regularizer", words[:1])
    assert configuration.toy_problem.permutation_symmetric is switch
    configuration.write(tmp_path / "config.yaml")
    assert read_configuration(tmp_path / "config.yaml") == configuration


def test_initial_weights_depend_on_the_seed_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = BASE.build_network().state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    for overrides, equal in ((["max_epochs=5", "data.batch_size=3"], True), (["seed=1235"], False)):
        other = configure("no_regularizer", overrides).build_network().state_dict()
        assert all(torch.equal(first[name], other[name]) == equal for name in first)


def test_every_setting_but_pictures_and_device_enters_the_key():
    plain, others = flat(BASE.as_dict()), set()
    words = {"true": "false", "advective": "score_fpe", "noised": "uniform", "dimensionless": "none", "cpu": "auto"}
    words |= {"exact": "hutchinson", "null": "5", "cosine": "{type: constant}", "[[0.25], [0.75]]": "[[0.25], [0.5]]"}
    words |= {"exponential": "{type: linear, sigma_min: 0.001, sigma_max: 0.2}"}  # the same numbers
    words |= {"fokker_planck": "{type: consistency, weight: 1, points: uniform}", "mlp": "{type: energy, length: 0.01}"}
    for name in plain.keys() - {"toy_problem.type", "toy_problem.permutation_symmetric"}:  # the latter is the network's
        value = plain[name]
        text = words.get(json.dumps(value).strip('"')) or (1.1 * value if isinstance(value, float) else value + 1)
        text = "0.5" if name == "optimizer.ema_decay" else text
        text = "{type: target_score_matching, length: 0.01}" if name == "target" else text
        if key(f"{name.removesuffix('.type')}={text}") == BASE.key():
            others.add(name)
    assert others == {"score_viewer.every_n_epochs", "score_viewer.field_every_n_epochs", "accelerator"}
    one = f"{{weight: 1, sigma_d: 0.01, {POSITIONS[12:]}: [[0.25], [0.75]]}}"
    assert key(f"toy_problem={{type: gaussian_mixture, gaussians: [{one}]}}") != BASE.key()


def test_key_is_of_the_values_however_they_are_written_without_the_blocks_that_are_left_out():
    assert key("regularizer.second_derivatives=exact", "regularizer.burn_in_epochs=0") == BASE.key()
    assert key("regularizer.weight=1") == key("regularizer.weight=1.0") == key("regularizer={weight: 1e+0}")
    assert len(BASE.key()) == 16 and set(BASE.key()) <= set("0123456789abcdef")
    assert configure("fokker_planck_regularizer", ["seed=1"]).key("seed") == BASE.key("seed") != BASE.key()
    assert BASE.key("seed", "regularizer") == configure("consistency_regularizer").key("seed", "regularizer")


def test_setting_that_is_added_with_a_default_changes_no_key():
    """So what was trained before is still known as the same."""

    class MoreData(Data):
        repetitions: int = 1

    class Later(Configuration):
        data: MoreData
        clipping: float | None = None

    content = BASE.as_dict()
    later = Later.model_validate(content)
    assert later.as_dict() != content and later.key() == BASE.key()
    for change in ({"clipping": 1.0}, {"data": content["data"] | {"repetitions": 2}}):
        assert Later.model_validate(content | change).key() != BASE.key()


def test_baseline_of_every_experiment_is_the_plain_network_on_plain_targets():
    plain = configure("no_regularizer")
    assert {configure(name).baseline.key() for name in find_experiments()} == {plain.key()} and plain.baseline == plain
    changed = configure("energy_network_with_stable_targets", ["seed=5", "score_network.hidden_size=8"]).baseline
    assert changed == configure("no_regularizer", ["seed=5", "score_network.hidden_size=8"])


def test_difference_names_what_is_only_in_one_of_two():
    before = configure(ANALYTICAL)
    now = configure(ANALYTICAL, ["seed=1", "scheduler={type: plateau, patience: 10, factor: 0.9}"])
    keys = {"scheduler.patience": (None, 10), "scheduler.factor": (None, 0.9)}
    assert difference(before, now) == keys | {"seed": (1234, 1), "scheduler.type": ("cosine", "plateau")}
