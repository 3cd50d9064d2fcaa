"""What a grid consists of: every combination once, names that tell runs apart, and a line on each mistake."""

from itertools import product

import pytest
from grids import FP, NO, grid

from utils.files import UserError
from utils.runs.run import Run
from utils.sweeps.plan import plan, plan_shipped, tag


def test_runs_are_all_combinations_and_their_names_tell_them_apart(tmp_path):
    overrides = {"regularizer.weight": [1e-3, 1e-5], "max_epochs": 7, "data.batch_size": [64, 128]}
    planned = plan(grid(tmp_path / "g.yaml", (FP, overrides), (NO, {}), overrides={"max_epochs": 9}))
    combinations = [*product((1e-3, 1e-5), (64, 128))]
    tags = [f"data.batch_size={size},regularizer.weight={weight}," for weight, size in combinations]
    assert [one.run.name for one in planned] == [f"tried/{one}seed={seed}" for one in [*tags, ""] for seed in (0, 1)]
    found = [(one.configuration.regularizer.weight, one.configuration.data.batch_size) for one in planned[:8:2]]
    assert found == combinations
    assert [one.configuration.max_epochs for one in planned] == [7] * 8 + [9] * 2  # a part's own comes first
    assert [one.configuration.seed for one in planned] == [0, 1] * 5


def test_run_that_is_there_twice_is_trained_once(tmp_path):
    again = {"data.batch_size": [512, 64]}  # 512 is what base_config.yaml says
    planned = plan(grid(tmp_path / "g.yaml", (NO, {}), (NO, again), seeds=(3, 3)))
    assert [one.run.name for one in planned] == ["tried/seed=3", "tried/data.batch_size=64,seed=3"]


def test_tag_is_safe_short_and_unique_whatever_the_value():
    values = [[[0.1], [0.5]], [[0.1, 0.5]], {"type": "cosine"}, "a/b", "a_b", "a b", "../x"]
    values += ["\N{GREEK SMALL LETTER PI}", "x" * 500, "x" * 501, None, True, 1e-30, -3, "mean"]
    tags = [tag({"seed": 1, "key": value}) for value in values]
    assert len(set(tags)) == len(values)
    assert max(map(len, tags)) <= 120
    assert all(Run(NO, f"sweep/{one}").sweep == "sweep" for one in tags)
    assert tags[-5:] == [f"key={value},seed=1" for value in ("null", "true", "1e-30", "-3", "mean")]


def test_shipped_runs_are_run1_of_every_experiment():
    assert [(one.run.name, one.overrides) for one in plan_shipped()] == [("run1", ())] * 5
    assert [one.run.experiment for one in plan_shipped([FP, NO])] == [FP, NO]
    with pytest.raises(UserError, match="did you mean no_regularizer"):
        plan_shipped(["no_regulariser"])


TOO_MANY = {f"optimizer.{i}": [*range(8)] for i in range(6)}  # planning them would take an hour
SAME_NAME = [f"parts.1, {NO}: two configurations would both be tried/seed={seed}; name what" for seed in (0, 1)]
TWO_FAULTS = [f"parts.1, {FP}: max_epochs: should be a valid integer, given 0.5"]
TWO_FAULTS += [f'parts.1, {FP}: regularizer.weight: should be a valid number, given "a"']
BAD_GRIDS = [
    ([(NO, {"sed": 1})], [f"parts.0, {NO}: sed: unknown key (did you mean seed?), given 1"]),
    ([(FP, {}), (FP, {"regularizer.weight": [1e-3, "a"], "max_epochs": 0.5})], TWO_FAULTS),
    ([("analytical", {})], ["parts.0.experiments: no experiment is called 'analytical'; there are: no_"]),
    ([], ["parts: List should have at least 1 item"]),
    ([(NO, {"max_epochs": 4}), (NO, {"max_epochs": 5})], SAME_NAME),
    ([(NO, TOO_MANY)], ["parts: these are 524,288 runs; a sweep has at most 10,000"]),
]


def refused(path, *lines):
    with pytest.raises(UserError) as fault:
        plan(path)
    said = sorted(line.removeprefix(f"{path}: ") for line in str(fault.value).splitlines())
    assert all(one.startswith(line) for one, line in zip(said, lines, strict=True)), said


@pytest.mark.parametrize(("parts", "lines"), BAD_GRIDS, ids=[lines[0] for _, lines in BAD_GRIDS])
def test_bad_grid_is_refused_with_the_key_of_each_fault(tmp_path, parts, lines):
    refused(grid(tmp_path / "bad.yaml", *parts), *lines)


def test_what_all_parts_share_is_checked_as_well(tmp_path, training):
    path, parts = tmp_path / "bad.yaml", [(NO, {})]
    refused(grid(path, *parts, overrides={"seed": 77}), "overrides: seed: the seeds are those of `seeds`")
    refused(grid(path, *parts, overrides={"max_epochs": []}), "overrides: max_epochs: an empty list of values")
    refused(grid(path, *parts, seeds=[-1]), "seeds.0: should be greater than or equal to 0, given -1")
    refused(grid(path, *parts, name="../x"), "name: should be letters, digits, dots, dashes and underscores")
    refused(grid(path, *parts, sedes=1), "sedes: unknown key (did you mean seeds?), given 1")
    folder = training / NO / "output" / "run1"
    folder.mkdir(parents=True)
    (folder / "config.yaml").touch()
    refused(grid(path, *parts, name="run1"), f"name: {folder} is a run already; choose another")
