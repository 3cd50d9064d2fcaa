"""What a grid of runs consists of: all combinations, names that tell runs apart, and a line on each fault."""

import pytest
import yaml

from training.sweep import main
from utils.runs.run import Run
from utils.sweeps.plan import plan, tag


def grid(path, *parts, name="tried", seeds=(0, 1)):
    """Write a sweep's file; a part is an experiment and its overrides."""
    parts = [{"experiments": [experiment], "overrides": overrides} for experiment, overrides in parts]
    path.write_text(yaml.safe_dump({"name": name, "seeds": list(seeds), "parts": parts}, sort_keys=False))
    return path


def test_runs_are_all_combinations_and_their_names_tell_them_apart(tmp_path):
    overrides = {"regularizer.weight": [1e-3, 1e-5], "max_epochs": 7, "data.batch_size": [64, 128]}
    planned = plan(grid(tmp_path / "g.yaml", ("fokker_planck_regularizer", overrides), ("no_regularizer", {})))
    assert [one.run.name for one in planned] == [
        *(
            f"tried/data.batch_size={size},regularizer.weight={weight},seed={seed}"
            for weight in ("0.001", "1e-05")
            for size in (64, 128)
            for seed in (0, 1)
        ),
        "tried/seed=0",
        "tried/seed=1",
    ]
    found = [(one.configuration.regularizer.weight, one.configuration.data.batch_size) for one in planned[:8:2]]
    assert found == [(1e-3, 64), (1e-3, 128), (1e-5, 64), (1e-5, 128)]
    assert {one.configuration.max_epochs for one in planned[:8]} == {7}
    assert [one.configuration.seed for one in planned] == [0, 1] * 5


def test_run_that_is_there_twice_is_trained_once(tmp_path):
    again = {"data.batch_size": [512, 64]}  # 512 is what base_config.yaml says
    planned = plan(grid(tmp_path / "g.yaml", ("no_regularizer", {}), ("no_regularizer", again), seeds=(3, 3)))
    assert [one.run.name for one in planned] == ["tried/seed=3", "tried/data.batch_size=64,seed=3"]


def test_tag_is_safe_short_and_unique_whatever_the_value():
    values = [
        [[0.1], [0.5]],
        [[0.1, 0.5]],
        "a/b",
        "a_b",
        "a b",
        "../x",
        {"type": "cosine"},
        "\N{GREEK SMALL LETTER PI}",
    ]
    values += ["x" * 500, "x" * 501, None, True, 1e-30, -3, "mean"]
    tags = [tag({"seed": 1, "key": value}) for value in values]
    assert len(set(tags)) == len(values)
    assert max(map(len, tags)) <= 120
    assert all(Run("no_regularizer", f"sweep/{one}").sweep == "sweep" for one in tags)
    assert tags[-5:] == [f"key={value},seed=1" for value in ("null", "true", "1e-30", "-3", "mean")]


NO, FP = "no_regularizer", "fokker_planck_regularizer"
BAD_GRIDS = [
    ([(NO, {"sed": 1})], ["parts.0, no_regularizer: sed: unknown key (did you mean seed?), given 1"]),
    (
        [(NO, {"max_epochs": [0]})],
        ["parts.0, no_regularizer: max_epochs: should be greater than or equal to 1, given 0"],
    ),
    (
        [(FP, {}), (FP, {"regularizer.weight": [1e-3, "a"], "max_epochs": 0.5})],
        [
            f"parts.1, {FP}: max_epochs: should be a valid integer, given 0.5",
            f'parts.1, {FP}: regularizer.weight: should be a valid number, given "a"',
        ],
    ),
    ([("idea", {})], ["parts.0.experiments: no experiment is called 'idea'; there are: no_regularizer, "]),
    ([("analytical", {})], ["parts.0.experiments: no experiment is called 'analytical'"]),
    ([(NO, {"seed": [1]})], ["parts.0.overrides: seed: the seeds are those of `seeds`"]),
    ([(NO, {"max_epochs": []})], ["parts.0.overrides: max_epochs: an empty list of values leaves no run"]),
    ([(NO, {"data[0]": 3})], ["parts.0, no_regularizer: data[0]=3: should be key=value"]),
    ([], ["parts: List should have at least 1 item"]),
    (
        [(NO, {"max_epochs": 4}), (NO, {"max_epochs": 5})],
        [f"parts.1, {NO}: two configurations would both be tried/seed={seed}; name what" for seed in (0, 1)],
    ),
]


def test_common_overrides_are_checked_like_those_of_a_part(tmp_path, capsys):
    for override, said in (("seed: 77", "seed: the seeds are"), ("max_epochs: []", "max_epochs: an empty list")):
        path = tmp_path / "bad.yaml"
        path.write_text(f"name: tried\nseeds: [0]\noverrides:\n  {override}\nparts:\n  - experiments: [{NO}]\n")
        assert main(["--config", str(path), "--dry-run"]) == 2
        assert capsys.readouterr().err.startswith(f"{path}: overrides: {said}")


@pytest.mark.parametrize("address", ["", "somewhere", "tcp://127.0.0.1:99999", "tls://127.0.0.1:8786"])
@pytest.mark.usefixtures("training")
def test_scheduler_that_cannot_be_is_refused_at_once(tmp_path, capsys, address):
    path = grid(tmp_path / "g.yaml", (NO, {}))
    assert main(["--config", str(path), "--scheduler", address]) == 2
    assert capsys.readouterr().err.startswith(f"--scheduler {address}: ")


def test_grid_that_is_too_large_is_refused_at_once(tmp_path, capsys):
    path = grid(tmp_path / "large.yaml", (NO, {f"optimizer.{i}": list(range(8)) for i in range(6)}))
    assert main(["--config", str(path), "--dry-run"]) == 2
    assert "parts: these are 524,288 runs; a sweep has at most 10,000" in capsys.readouterr().err


@pytest.mark.parametrize(("parts", "lines"), BAD_GRIDS, ids=[lines[0] for _, lines in BAD_GRIDS])
@pytest.mark.usefixtures("training")
def test_bad_grid_is_refused_with_the_key_of_each_fault(tmp_path, capsys, parts, lines):
    path = grid(tmp_path / "bad.yaml", *parts)
    assert main(["--config", str(path)]) == 2
    said = sorted(line.removeprefix(f"{path}: ") for line in capsys.readouterr().err.splitlines())
    assert len(said) == len(lines)
    assert all(one.startswith(line) for one, line in zip(said, lines, strict=True))
    assert not list(tmp_path.glob("training/*/output"))


def test_shipped_sweep_is_valid_and_a_dry_run_starts_nothing(training, capsys):
    assert main(["--dry-run", "--config", str(training / "sweep_config.yaml")]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 25
    assert not list(training.glob("*/output"))


def test_name_of_a_sweep_is_not_that_of_a_run(training, tmp_path, capsys):
    folder = training / "no_regularizer" / "output" / "run1"
    folder.mkdir(parents=True)
    (folder / "config.yaml").touch()
    assert main(["--config", str(grid(tmp_path / "g.yaml", (NO, {}), name="run1"))]) == 2
    assert capsys.readouterr().err.strip().endswith(f"name: {folder} is a run already; choose another")
