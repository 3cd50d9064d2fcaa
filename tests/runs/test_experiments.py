"""The configuration: what is refused and how it is said, how layers merge, and how a run is found and loaded."""

import os
import pickle

import pytest
import torch

from utils.runs.loading import (
    Run,
    UserError,
    configure,
    find_experiments,
    load_run,
    load_score_network,
    read_configuration,
)

BASE, SPECIFIC = "training/base_config.yaml", "training/no_regularizer/specific_config.yaml"
POSITIONS = "toy_problem.equilibrium_relative_coordinates"


def complaint(overrides=(), experiment="no_regularizer"):
    with pytest.raises(UserError) as caught:
        configure(experiment, overrides)
    return str(caught.value)


# overrides, then key and text of the one line there should be
BAD_OVERRIDES = [
    ("sed=1", "sed", "unknown key (did you mean seed?), given 1"),
    ("score_network.hiden_size=3", "score_network.hiden_size", "unknown key (did you mean hidden_size?), given 3"),
    ("zzz.y=1", "zzz", 'unknown key, given {"y": 1}'),
    ("seed=1 seed=2", "seed", "given twice"),
    ("data.batch_size=1 seed=2 data.batch_size=1", "data.batch_size", "given twice"),
    ("seed=x", "seed", 'should be a valid integer, given "x"'),
    ("seed=", "seed", "should be a valid integer, given null"),
    ("seed=1.5", "seed", "should be a valid integer, given 1.5"),
    ("seed=true", "seed", "should be a valid integer, given true"),
    ("max_epochs=1e3", "max_epochs", "should be a valid integer, given 1000.0"),
    ("data.fresh_noise=1", "data.fresh_noise", "should be a valid boolean, given 1"),
    ("data=3", "data", "should be a valid dictionary or instance of Data, given 3"),
    ("data.batch_size.x=3", "data.batch_size", 'should be a valid integer, given {"x": 3}'),
    ("seed=-1", "seed", "should be greater than or equal to 0, given -1"),
    ("max_epochs=0", "max_epochs", "should be greater than or equal to 1, given 0"),
    ("data.number_of_times=1", "data.number_of_times", "should be greater than or equal to 2, given 1"),
    ("optimizer.learning_rate=0", "optimizer.learning_rate", "should be greater than 0, given 0"),
    ("optimizer.learning_rate=.inf", "optimizer.learning_rate", "should be a finite number, given Infinity"),
    ("optimizer.learning_rate=.nan", "optimizer.learning_rate", "should be a finite number, given NaN"),
    ("noise_schedule.sigma_min=0.2", "noise_schedule", "sigma_min must be smaller than sigma_max, given {"),
    ("noise_schedule.sigma_max=1e-4", "noise_schedule", "sigma_min must be smaller than sigma_max, given {"),
    (f"{POSITIONS}=[[0.25],[1.0]]", f"{POSITIONS}.1.0", "should be less than 1, given 1.0"),
    (f"{POSITIONS}=[[-0.1],[0.5]]", f"{POSITIONS}.0.0", "should be greater than or equal to 0, given -0.1"),
    (f"{POSITIONS}=[[0.2],[0.2]]", POSITIONS, "two atoms sit at the same place, given [[0.2], [0.2]]"),
    (f"{POSITIONS}=[[0.2],[0.1,0.3]]", POSITIONS, "every atom needs the same number of coordinates, given"),
    ("scheduler.type=cosine scheduler.patience=3", "scheduler.patience", "unknown key, given 3"),
    ("scheduler.type=cosin", "scheduler.type", "should be one of 'plateau', 'cosine', 'constant', given \"cosin\""),
    ("accelerator=tpu", "accelerator", "should be 'cpu', 'cuda', 'mps' or 'auto', given \"tpu\""),
    ("seed=${sed}", "seed", "Interpolation key 'sed' not found"),
    ("seed=${seed}", "seed", "Recursive interpolation detected"),
    ("seed", "seed", "should be key=value, for example"),
    ("=3", "=3", "should be key=value, for example"),
    ("data[0]=3", "data[0]=3", "should be key=value, for example"),
    ("seed=[1", "seed=[1", "the value is not valid YAML"),
]


@pytest.mark.parametrize(("overrides", "key", "text"), BAD_OVERRIDES, ids=[case[0] for case in BAD_OVERRIDES])
def test_bad_override_is_named_in_one_line_as_it_was_written(overrides, key, text):
    said = complaint(overrides.split())
    assert said.startswith(f"command line: {key}: {text}")
    assert "\n" not in said


# what to replace in a file by what, then how the one line starts
BAD_FILES = [
    (BASE, "seed: 1234", "seed: x", f'{BASE}: seed: should be a valid integer, given "x"'),
    (BASE, "seed: 1234", "", f"{BASE}: seed: missing"),
    (BASE, "  batch_size: 512", "", f"{BASE}: data.batch_size: missing"),
    (BASE, "type: plateau", "typ: plateau", f"{BASE}: scheduler.type: missing; no scheduler is set"),
    (BASE, "factor: 0.9", "factor: 1.0", f"{BASE}: scheduler.factor: should be less than 1, given 1.0"),
    (BASE, "seed: 1234", "seed: 1\nseed: 2", "/training/base_config.yaml, line 5: found duplicate key seed"),
    (SPECIFIC, "regularizer: null", "sede: 1", f"{SPECIFIC}: sede: unknown key (did you mean seed?), given 1"),
    (SPECIFIC, "regularizer: null", "seed: ${x}", f"{SPECIFIC}: seed: Interpolation key 'x' not found"),
    (SPECIFIC, "regularizer: null", "data: {batch_size: 0}", f"{SPECIFIC}: data.batch_size: should be greater"),
    (SPECIFIC, "regularizer: null", "- 1\n- 2", f"/{SPECIFIC}: should hold `key: value` pairs, given a list"),
    (SPECIFIC, "regularizer: null", "data: [1", f"/{SPECIFIC}, line 3: did not find expected"),
    (SPECIFIC, "regularizer: null", "data:\n\tbatch_size: 1", f"/{SPECIFIC}, line 3: found character that cannot"),
    (SPECIFIC, "regularizer: null", "seed: !!python/name:os.system", f"/{SPECIFIC}, line 2: tags (!name) are not read"),
    (SPECIFIC, "regularizer", "\N{LATIN SMALL LETTER E WITH ACUTE}", f"/{SPECIFIC}: 'utf-8' codec can't decode byte"),
]


@pytest.mark.parametrize(("file", "old", "new", "start"), BAD_FILES)
def test_fault_in_a_file_is_named_with_the_file(training, file, old, new, start):
    path = training.parent / file
    text = path.read_text(encoding="utf-8")
    assert text.count(old)
    path.write_text(text.replace(old, new), encoding="latin-1")
    said = complaint(["max_epochs=5", "score_network.hidden_size=8"]).removeprefix(str(training.parent))
    assert said.startswith(start)
    assert "\n" not in said


def test_missing_base_file_is_named(training):
    (training / "base_config.yaml").unlink()
    assert complaint() == f"{training / 'base_config.yaml'}: No such file or directory"


def test_every_fault_gets_its_line(training):
    (training / "no_regularizer" / "specific_config.yaml").write_text("data: {batch_size: a}\nregularizer: null\n")
    assert sorted(complaint(["sed=1", "max_epochs=0"]).splitlines()) == [
        "command line: max_epochs: should be greater than or equal to 1, given 0",
        "command line: sed: unknown key (did you mean seed?), given 1",
        f'{SPECIFIC}: data.batch_size: should be a valid integer, given "a"',
    ]


@pytest.mark.parametrize(
    "override",
    [
        "toy_problem.permutation_symmetric=false",
        "score_network.permutation_equivariant=false toy_problem.permutation_symmetric=true",
    ],
)
def test_law_that_the_network_cannot_represent_is_refused(override):
    said = complaint(override.split())
    assert "toy_problem.permutation_symmetric" in said and "score_network.permutation_equivariant" in said
    assert "\n" not in said
    assert said.startswith("command line: toy_problem.permutation_symmetric: ")


def test_one_switch_makes_law_and_network_symmetric_or_not():
    for switch in (True, False):
        configuration = configure("no_regularizer", [f"score_network.permutation_equivariant={str(switch).lower()}"])
        assert configuration.toy_problem.permutation_symmetric is switch
        assert configuration.score_network.permutation_equivariant is switch


def test_seed_that_torch_cannot_take_is_refused():
    assert complaint(["seed=99999999999999999999"]).startswith("command line: seed: ")


def test_layers_merge_deeply_and_the_last_word_counts(training):
    (training / "no_regularizer" / "specific_config.yaml").write_text(
        "regularizer: null\ndata: {batch_size: 7, training_set_size: 70}\nseed: 7\n"
    )
    plain, ours = configure("analytical"), configure("no_regularizer", ["data.batch_size=8", "max_epochs=9"])
    changed = {"seed": 7, "max_epochs": 9, "data": plain.data.model_copy(update={"batch_size": 8})}
    changed["data"] = changed["data"].model_copy(update={"training_set_size": 70})
    assert ours == plain.model_copy(update=changed)


@pytest.mark.parametrize("overrides", [["scheduler.type=constant"], ["scheduler={type: constant}"]])
def test_another_type_discards_the_keys_of_the_old_one(overrides):
    assert configure("no_regularizer", overrides).scheduler.model_dump() == {"type": "constant"}


def test_another_type_needs_its_own_keys():
    expected = [f"command line: noise_schedule.{key}: missing" for key in ("sigma_min", "sigma_max")]
    assert complaint(["noise_schedule.type=linear"]).splitlines() == expected
    schedule = configure("no_regularizer", ["noise_schedule={type: linear, sigma_min: 0.1, sigma_max: 0.3}"])
    assert schedule.noise_schedule.model_dump() == {"type": "linear", "sigma_min": 0.1, "sigma_max": 0.3}


def test_the_same_type_keeps_the_other_keys():
    scheduler = configure("no_regularizer", ["scheduler.type=plateau", "scheduler.patience=3"]).scheduler
    assert scheduler.model_dump() == {"type": "plateau", "patience": 3, "factor": 0.9}


@pytest.mark.parametrize("experiment", find_experiments())
def test_configuration_written_is_the_one_read(experiment, tmp_path):
    configuration = configure(experiment, ["optimizer.learning_rate=1.2345678901234567e-5", f"{POSITIONS}=[[0.1]]"])
    configuration.write(tmp_path / "config.yaml")
    assert read_configuration(tmp_path / "config.yaml") == configuration


def test_initial_weights_depend_on_the_seed_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = configure("no_regularizer").build_network().state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    for overrides, equal in ((["max_epochs=5", "data.batch_size=3"], True), (["seed=1235"], False)):
        other = configure("no_regularizer", overrides).build_network().state_dict()
        assert all(torch.equal(first[name], other[name]) == equal for name in first)


def test_analytical_network_needs_no_run_and_is_the_exact_score(truth, generator):
    network = load_score_network("analytical")
    assert not network.training
    x, t = torch.rand(20, 2, 1, generator=generator), torch.rand(20, generator=generator)
    assert torch.equal(network(x, t), truth(x, t))


@pytest.mark.parametrize(
    ("experiment", "run_name", "text"),
    [
        ("no_regularizer", "run1", "not trained yet; train it with: bash training/no_regularizer/run.sh"),
        ("no_regularizer", "r2", "not trained yet; train it with: bash training/no_regularizer/run.sh --run-name r2"),
        ("no_regulariser", "run1", "no experiment is called 'no_regulariser'; did you mean no_regularizer?"),
        ("../x", "run1", "no experiment is called '../x'; there are: no_regularizer"),
        ("", "run1", "no experiment is called ''; there are: no_regularizer"),
        ("no_regularizer", "../x", "run name '../x': should be letters, digits, dots, dashes and underscores"),
        ("no_regularizer", "..", "run name '..': should be letters, digits, dots, dashes and underscores"),
        ("no_regularizer", "", "run name '': should be letters, digits, dots, dashes and underscores"),
    ],
)
def test_run_that_is_not_there_is_named_with_what_to_do(training, experiment, run_name, text):
    with pytest.raises(UserError) as caught:
        load_score_network(experiment, run_name)
    said = str(caught.value)
    assert text in said and (said.endswith(text) or "there are" in text)


@pytest.fixture
def run(training):
    """A run whose best checkpoint holds an untrained network."""
    run, configuration = Run("no_regularizer"), configure("no_regularizer", ["seed=5"])
    configuration.write(run.configuration_file)
    run.best_checkpoint.parent.mkdir()
    state = configuration.build_network().state_dict()
    torch.save({"state_dict": {f"network.{name}": value for name, value in state.items()}}, run.best_checkpoint)
    return run


def test_network_of_a_run_is_the_one_in_its_checkpoint(run):
    network = load_score_network("no_regularizer")
    assert not network.training
    expected = configure("no_regularizer", ["seed=5"]).build_network().state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in network.state_dict().items())


class RunsCode:
    """When unpickled, writes a file."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def half(path, marker):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def cut_short(path, marker):
    path.write_bytes(path.read_bytes()[:-1])


def empty(path, marker):
    path.write_bytes(b"")


def text(path, marker):
    path.write_text("hello")


def code_in_a_checkpoint(path, marker):
    torch.save(torch.load(path) | {"extra": RunsCode(marker)}, path)


def code_in_a_pickle(path, marker):
    path.write_bytes(pickle.dumps(RunsCode(marker), protocol=2))


def no_weights(path, marker):
    torch.save({"epoch": 3}, path)


def other_sizes(path, marker):
    state = configure("no_regularizer", ["score_network.hidden_size=8"]).build_network().state_dict()
    torch.save({"state_dict": {f"network.{name}": value for name, value in state.items()}}, path)


def not_a_dictionary(path, marker):
    torch.save([1, 2], path)


@pytest.mark.parametrize(
    "damage",
    [half, cut_short, code_in_a_checkpoint, code_in_a_pickle, empty, text, no_weights, other_sizes, not_a_dictionary],
)
def test_checkpoint_that_is_none_is_named_and_runs_no_code(run, tmp_path, damage):
    marker = tmp_path / "marker"
    damage(run.best_checkpoint, marker)
    with pytest.raises(UserError) as caught:
        load_run(run)
    assert str(run.best_checkpoint) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not marker.exists()


def test_the_marker_of_the_test_above_appears_where_pickle_is_trusted(tmp_path):
    pickle.loads(pickle.dumps(RunsCode(tmp_path / "marker")))
    assert (tmp_path / "marker").exists()
