"""What is wrong on the way in is said in sentences, names where it stands, and leaves everything as it was."""

import os
import time

import pytest
from conftest import in_shell

import analyse_experiments
from training import train

BASE, SPECIFIC = "base_config.yaml", "no_regularizer/specific_config.yaml"
POSITIONS, KIND = "toy_problem.equilibrium_relative_coordinates", "regularizer.type"
LIMIT = "1000000000"


def snapshot(folder):
    """Return everything below a folder: files with their content, and folders."""
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*") if not path.is_fifo()}


def refused(main, words, capsys, folder):
    """Run a command that must be refused; return the lines it says."""
    before = snapshot(folder)
    capsys.readouterr()
    try:
        status = main(words)
    except SystemExit as end:  # argparse
        status = end.code
    printed = capsys.readouterr()
    assert status == 2
    assert snapshot(folder) == before
    assert printed.out == "" and "Traceback" not in printed.err
    assert printed.err.isascii() or "\N{LATIN SMALL LETTER E WITH ACUTE}" in printed.err
    return [line for line in printed.err.splitlines() if not line.startswith(("usage:", "   "))]


# overrides, then how the lines start, one for each fault, after "command line: "
OVERRIDES = [
    # keys
    (["sed=1"], ["sed: unknown key (did you mean seed?), given 1"]),
    (["Seed=1"], ["Seed: unknown key (did you mean seed?), given 1"]),
    (["data.batchsize=1"], ["data.batchsize: unknown key (did you mean batch_size?)"]),
    (["optimizer.betas=[0.9, 0.99]"], ["optimizer.betas: unknown key"]),
    (["scheduler.factor.x=1"], ["scheduler.factor: should be a valid number"]),
    (["sed=1", "data.x=2"], ["data.x: unknown key, given 2", "sed: unknown key"]),
    (["seed.x=1"], ["seed: should be a valid integer"]),
    (["data={1: 2}"], ["data.1: unknown key, given 2"]),
    (["data={true: 2}"], ["data.True: unknown key, given 2"]),
    (['data={"a\\nb": 2}'], [r"data.a\nb: unknown key, given 2"]),
    (["x" * 9999 + "=1"], ["xxx"]),
    (["a" + ".a" * 3000 + "=1"], ["a.a.a.a"]),
    (["seed=1", "seed=1"], ["seed: given twice"]),
    (["data.batch_size=5", "seed=1", "data.batch_size=6"], ["data.batch_size: given twice"]),
    (["data.batch_size=5", "data={batch_size: 6}"], ["data.batch_size: given twice"]),
    (["regularizer=null", "regularizer.weight=1"], ["regularizer.weight: given twice"]),
    (["regularizer.weight=1", "regularizer=null"], ["regularizer: given twice"]),
    (["seed={a: 1, a: 2}"], ["seed={a: 1, a: 2}: the value is not valid YAML"]),
    (["noise_schedule.type=linear"], [f"noise_schedule.{key}: missing" for key in ("sigma_min", "sigma_max")]),
    (["regularizer={type: fokker_planck}"], ["regularizer.weight: missing", "regularizer.points: missing"]),
    (["regularizer={weight: 1}"], [f"{KIND}: missing"]),
    (
        ["regularizer.weight=1"],
        [f"{KIND}: missing; no regularizer is set whose keys could be changed, so give its type"],
    ),
    # types
    (["seed=x"], ['seed: should be a valid integer, given "x"']),
    (["seed="], ["seed: should be a valid integer, given null"]),
    (["seed=1.5"], ["seed: should be a valid integer, given 1.5"]),
    (["max_epochs=true"], ["max_epochs: should be a valid integer, given true"]),
    (["data.fresh_noise=1"], ["data.fresh_noise: should be a valid boolean, given 1"]),
    (["data=null"], ["data: should be a valid dictionary"]),
    (["toy_problem=[]"], ["toy_problem: should be a valid dictionary"]),
    (["regularizer=[]"], ["regularizer: should be a valid dictionary"]),
    (["regularizer={type: [1]}"], [f"{KIND}: should be one of 'analytical_regression', "]),
    (["scheduler.type=null"], ["scheduler.type: should be one of 'plateau', "]),
    (["accelerator=tpu"], ["accelerator: should be 'cpu', 'cuda', 'mps' or 'auto'"]),
    (["seed=2020-99-99"], ['seed: should be a valid integer, given "2020-99-99"']),
    # values
    (["seed=-1"], ["seed: should be greater than or equal to 0, given -1"]),
    (["seed=99999999999999999999"], ["seed: should be less than 9223372036854775808"]),
    (["max_epochs=0"], ["max_epochs: should be greater than or equal to 1, given 0"]),
    ([f"max_epochs={LIMIT}0"], [f"max_epochs: should be less than or equal to {LIMIT}"]),
    (["data.training_set_size=-8"], ["data.training_set_size: should be greater than or equal to 1, given -8"]),
    (["data.training_set_size=1" + "0" * 30], ["data.training_set_size: should be less than or equal to 10000000"]),
    (["data.batch_size=1" + "0" * 30], [f"data.batch_size: should be less than or equal to {LIMIT}"]),
    (["score_network.hidden_size=1000000000"], ["score_network.hidden_size: should be less than or equal to 4096"]),
    (["score_network.number_of_hidden_layers=0"], ["score_network.number_of_hidden_layers: should be greater than"]),
    (["optimizer.learning_rate=0"], ["optimizer.learning_rate: should be greater than 0, given 0"]),
    (["optimizer.learning_rate=-1e-3"], ["optimizer.learning_rate: should be greater than 0, given -0.001"]),
    (["optimizer.learning_rate=.inf"], ["optimizer.learning_rate: should be a finite number"]),
    (["optimizer.learning_rate=1e999"], ["optimizer.learning_rate: should be a finite number"]),
    (["optimizer.weight_decay=.nan"], ["optimizer.weight_decay: should be a finite number, given NaN"]),
    (["scheduler.factor=1"], ["scheduler.factor: should be less than 1, given 1"]),
    (["seed=1" + "0" * 5000], ["seed: a value of more than 1000 characters"]),
    (["toy_problem.sigma_d=1e300"], ["toy_problem.sigma_d: should be less than or equal to 100"]),
    (["toy_problem.sigma_d=1e-300"], ["toy_problem.sigma_d: should be greater than or equal to"]),
    (["noise_schedule.sigma_min=0"], ["noise_schedule.sigma_min: should be greater than or equal to"]),
    (["noise_schedule.sigma_min=0.2"], ["noise_schedule: sigma_min must be smaller than sigma_max"]),
    (["noise_schedule.sigma_min=0.3"], ["noise_schedule: sigma_min must be smaller than sigma_max"]),
    # coordinates
    ([f"{POSITIONS}=[]"], [f"{POSITIONS}: should have 1 to 6 atoms with at least one coordinate each, given []"]),
    ([f"{POSITIONS}=[[]]"], [f"{POSITIONS}: should have 1 to 6 atoms with at least one coordinate each, given [[]]"]),
    ([f"{POSITIONS}=[0.1, 0.2]"], [f"{POSITIONS}.0: should be a valid tuple", f"{POSITIONS}.1: should be a valid"]),
    ([f"{POSITIONS}=[[0.1], [0.2, 0.3]]"], [f"{POSITIONS}: every atom needs the same number of coordinates"]),
    ([f"{POSITIONS}=[[0.1], [1.0]]"], [f"{POSITIONS}.1.0: should be less than 1, given 1.0"]),
    ([f"{POSITIONS}=[[-0.1], [0.5]]"], [f"{POSITIONS}.0.0: should be greater than or equal to 0, given -0.1"]),
    ([f"{POSITIONS}=[[.nan], [0.5]]"], [f"{POSITIONS}.0.0: should be a finite number"]),
    ([f"{POSITIONS}=[[0.5], [0.5]]"], [f"{POSITIONS}: two atoms sit at the same place"]),
    ([f"{POSITIONS}=[[0.0], [0.9999999999]]"], [f"{POSITIONS}: two atoms sit at the same place"]),
    ([f"{POSITIONS}=[[0.1], [0.2], [0.3], [0.4], [0.5], [0.6], [0.7]]"], [f"{POSITIONS}: should have 1 to 6 atoms"]),
    ([f"{POSITIONS}=[{[0.1] * 17}]"], [f"{POSITIONS}: should have at most 16 coordinates an atom"]),
    # words that are no settings
    (["seed"], ["seed: should be key=value, for example"]),
    ([""], [": should be key=value, for example"]),
    (["=1"], ["=1: should be key=value, for example"]),
    (["data[0]=1"], ["data[0]=1: should be key=value, for example"]),
    (["se\ned=1"], [r"se\ned=1: should be key=value, for example"]),
    (["seed=\x1b[31m"], [r"seed=\x1b[31m: the value is not valid YAML"]),
    (["seed=\udcff"], [r"seed=\udcff: the value is not valid YAML"]),
    (["seed=[1"], ["seed=[1: the value is not valid YAML"]),
    (["seed=" + "[" * 2000 + "]" * 2000], ["seed: more than 20 levels"]),
    (["seed=&a [*a]"], ["seed: aliases (*name) are not read; write the value out"]),
    (["seed=!!timestamp x"], ["seed: tags (!name) are not read; write a plain value"]),
    (["seed=!!python/object/apply:os.mkdir [marker]"], ["seed: tags (!name) are not read; write a plain value"]),
    (["seed=${sed}"], ["seed: Interpolation key 'sed' not found"]),
    (["seed=${seed}"], ["seed: Recursive interpolation detected"]),
    (["seed=" + "${seed}" * 11], ["more than 10 references ${...}; write the values out"]),
]


@pytest.mark.parametrize(("overrides", "starts"), OVERRIDES, ids=[" ".join(case[0])[:60] for case in OVERRIDES])
def test_bad_setting_is_refused_in_a_line_that_names_it(training, capsys, monkeypatch, overrides, starts):
    monkeypatch.chdir(training)  # where a marker would be
    said = sorted(refused(train.main, ["no_regularizer", *overrides], capsys, training.parent))
    assert len(said) == len(starts)
    for line, start in zip(said, sorted(starts), strict=True):
        assert line.startswith(f"command line: {start}")
        assert len(line) < 400


LEVELS = "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
BOMB = f"a: &a [x, x, x, x, x, x, x, x, x]\n{LEVELS}"
DOUBLING = "a0: xxxxxxxxxx\n" + "".join(f"a{i + 1}: ${{a{i}}}${{a{i}}}\n" for i in range(40))
MERGING = "a0: &a0 {k: 1}\n" + "".join(f"a{i + 1}: &a{i + 1} {{<<: [*a{i}, *a{i}]}}\n" for i in range(40))
CODE = "!!python/object/apply:os.mkdir [marker]"

# what a file holds, then the one line after its name
CONTENTS = {
    "empty": (b"", ": should hold `key: value` pairs, but is empty"),
    "a comment": (b"# nothing\n", ": should hold `key: value` pairs, but is empty"),
    "no YAML": (b"seed: [1\n", ", line 2: did not find expected"),
    "a tab": (b"data:\n\tbatch_size: 1\n", ", line 2: found character that cannot start any token"),
    "a word": (b"hello\n", ": should hold `key: value` pairs, given hello"),
    "a number": (b"5\n", ": should hold `key: value` pairs, given 5"),
    "a list": (b"- 1\n- 2\n", ": should hold `key: value` pairs, given a list"),
    "two documents": (b"a: 1\n---\nb: 2\n", ", line 2: but found another document"),
    "a key twice": (b"seed: 1\nseed: 2\n", ", line 2: found duplicate key seed"),
    "no key": (b"null: 1\n", ": Incompatible key type 'NoneType'"),
    "a list as a key": (b"[1]: 2\n", ", line 1: found unhashable key"),
    "zeros": (bytes(100), ": unacceptable character #x0000"),
    "random bytes": (bytes(range(1, 256)), ": 'utf-8' codec can't decode byte"),
    "Latin-1": ("\N{LATIN SMALL LETTER E WITH ACUTE}: 1\n".encode("latin-1"), ": 'utf-8' codec can't decode byte 0xe9"),
    "UTF-16": ("seed: 1\n".encode("utf-16"), ": 'utf-8' codec can't decode byte 0xff"),
    "50 MB": (b"seed: 1  # and more\n" * 2_500_000, ": too large for a configuration: more than 1 MB"),
    "many values": (f"seed: {[1] * 3000}\n".encode(), ", line 1: more than 2000 keys and values"),
    "a deep nest": (b"[" * 100_000, ", line 1: more than 20 levels"),
    "a long value": (b"seed: " + b"1" * 5000, ", line 1: a value of more than 1000 characters"),
    "a bomb of aliases": (BOMB.encode(), ", line 2: aliases (*name) are not read; write the value out"),
    "a bomb of merges": (MERGING.encode(), ", line 2: aliases (*name) are not read; write the value out"),
    "itself": (b"a: &a {b: *a}\n", ", line 1: aliases (*name) are not read; write the value out"),
    "code": (f"seed: 1\nregularizer: {CODE}\n".encode(), ", line 2: tags (!name) are not read; write a plain value"),
    "nothing but code": (CODE.encode(), ", line 1: tags (!name) are not read; write a plain value"),
    "a tag of YAML": (b"seed: !!timestamp x\n", ", line 1: tags (!name) are not read; write a plain value"),
}


@pytest.mark.parametrize("file", [BASE, SPECIFIC])
@pytest.mark.parametrize("content", CONTENTS)
def test_bad_file_is_refused_at_once_in_a_line_that_names_it(training, capsys, monkeypatch, file, content):
    monkeypatch.chdir(training)
    written, rest = CONTENTS[content]
    (training / file).write_bytes(written)
    began = time.monotonic()
    said = refused(train.main, ["no_regularizer"], capsys, training.parent)
    assert time.monotonic() - began < 5  # 0.1 on an idle machine; written out, the bombs have 10^8 values and more
    assert len(said) == 1 and said[0].startswith(f"{training / file}{rest}")


@pytest.mark.parametrize(
    ("file", "content", "start"),
    [
        (SPECIFIC, "sede: 1", "sede: unknown key (did you mean seed?), given 1"),
        (SPECIFIC, "1: 2", "1: unknown key, given 2"),
        (SPECIFIC, '"a\\nb": 2', r"a\nb: unknown key, given 2"),
        (SPECIFIC, "data: {batch_size: 0}", "data.batch_size: should be greater than or equal to 1, given 0"),
        (SPECIFIC, DOUBLING, "more than 10 references ${...}; write the values out"),
    ],
)
def test_bad_setting_in_a_file_is_refused_in_a_line_that_names_both(training, capsys, file, content, start):
    (training / file).write_text(content, encoding="utf-8")
    said = refused(train.main, ["no_regularizer", "max_epochs=2"], capsys, training.parent)
    assert len(said) == 1 and said[0].startswith(f"training/{file}: {start}")


def test_file_that_is_a_folder_or_not_there_is_named(training, capsys):
    (training / SPECIFIC).rename(training / "kept")
    (training / SPECIFIC).mkdir()
    said = refused(train.main, ["no_regularizer"], capsys, training.parent)
    assert said == [f"{training / SPECIFIC}: Is a directory"]
    (training / BASE).unlink()
    said = refused(train.main, ["no_regularizer"], capsys, training.parent)
    assert said == [f"{training / BASE}: No such file or directory"]


@pytest.mark.parametrize("words", [[], ["--from-scratch"], ["--run-name", "run2"]])
def test_file_where_the_runs_should_be_is_named(training, capsys, words):
    path = training / "no_regularizer" / "output"
    path.write_text("my notes")
    said = refused(train.main, ["no_regularizer", *words], capsys, training.parent)
    assert said == [f"{path}: a file is where a folder should be"]


@pytest.mark.privileged
@pytest.mark.skipif(os.geteuid() == 0, reason="root reads and writes everything")
def test_file_that_may_not_be_read_and_folder_that_may_not_be_written_are_named(training, capsys, tmp_path):
    (training / SPECIFIC).chmod(0)
    said = refused(train.main, ["no_regularizer"], capsys, training / "consistency_regularizer")
    assert said == [f"{training / SPECIFIC}: Permission denied"]
    (training / SPECIFIC).chmod(0o600)
    (training / "no_regularizer").chmod(0o500)
    said = refused(train.main, ["no_regularizer"], capsys, training)
    assert said == [f"{training / 'no_regularizer' / 'output'}: Permission denied"]
    (tmp_path / "output").mkdir(mode=0o500)
    words = ["--experiments", "analytical", "--output-dir", str(tmp_path / "output")]
    said = refused(analyse_experiments.main, words, capsys, training)
    assert len(said) == 1 and said[0].startswith(str(tmp_path / "output")) and said[0].endswith(": Permission denied")
    (training / "no_regularizer").chmod(0o700)


COMMAND_LINES = [
    ([], "run.sh: error: the following arguments are required: experiment"),
    (["no_regularizer", "--nope"], "run.sh: error: unrecognized arguments: --nope"),
    (["no_regularizer", "--from-scratch=1"], "run.sh: error: argument --from-scratch: ignored explicit argument '1'"),
    (["no_regularizer", "--run-name"], "run.sh: error: argument --run-name: expected one argument"),
    (["no_regularizer", "--run-name", ""], "run name '': should be letters, digits"),
    (["no_regularizer", "--run-name", ".."], "run name '..': should be letters, digits"),
    (["no_regularizer", "--run-name", "../x"], "run name '../x': should be letters, digits"),
    (["no_regularizer", "--run-name", "/x"], "run name '/x': should be letters, digits"),
    (["no_regularizer", "--run-name", "a b\n"], r"run name 'a b\n': should be letters, digits"),
    (["no_regularizer", "--run-name", "x" * 300], "run name 'xxx"),
    (["no_regulariser"], "no experiment is called 'no_regulariser'; did you mean no_regularizer?"),
    (["nonsense"], "no experiment is called 'nonsense'; there are: no_regularizer, "),
    (["../training/no_regularizer"], "no experiment is called '../training/no_regularizer'; "),
    (["no_regularizer/"], "no experiment is called 'no_regularizer/'; did you mean no_regularizer?"),
    ([".."], "no experiment is called '..'; there are: no_regularizer, "),
    (["a\0b"], r"no experiment is called 'a\x00b'; there are: no_regularizer, "),
    (["analytical"], "analytical is the exact score: there is nothing to train"),
]


@pytest.mark.parametrize(("words", "start"), COMMAND_LINES)
def test_bad_command_line_of_a_training_is_refused(training, capsys, words, start):
    said = refused(train.main, words, capsys, training.parent)
    assert len(said) == 1 and said[0].startswith(start)


ERROR = "error: argument"
COMMAND_LINES_OF_THE_ANALYSIS = [
    (["--nope"], "error: unrecognized arguments: --nope"),
    (["no_regularizer"], "error: unrecognized arguments: no_regularizer"),
    (["--experiments"], f"{ERROR} --experiments: expected at least one argument"),
    (["--experiments", "no_regulariser"], "no experiment is called 'no_regulariser'; did you mean no_regularizer?"),
    (["--experiments", "analytical", "../x"], "no experiment is called '../x'; there are: "),
    (["--experiments", "no_regularizer/output"], "no experiment is called 'no_regularizer/output'; did you mean "),
    (["--run-name", "../x"], "run name '../x': should be letters, digits"),
    (["--sweep", "../x"], "sweep '../x': should be letters, digits"),
    (
        ["--sweep", "nonsense"],
        "there is no run of a sweep 'nonsense'; `python -m training.sweep --config FILE` trains one",
    ),
    (["--number-of-samples", "0"], f"{ERROR} --number-of-samples: should be between 1 and 10000000, given 0"),
    (["--number-of-samples", "1e3"], f"{ERROR} --number-of-samples: invalid count value: '1e3'"),
    (["--number-of-samples", "1" + "0" * 30], f"{ERROR} --number-of-samples: should be between 1 and 10000000"),
    (["--time-steps", "-1"], f"{ERROR} --time-steps: should be between 1 and 1000000, given -1"),
    (["--time-steps", "1" + "0" * 30], f"{ERROR} --time-steps: should be between 1 and 1000000"),
    (["--corrector-steps", "nan"], f"{ERROR} --corrector-steps: invalid count value: 'nan'"),
    (["--seed", "1" + "0" * 30], f"{ERROR} --seed: should be between 0 and 9223372036854775807"),
    (["--start", "here"], f"{ERROR} --start: invalid choice: 'here'"),
    (["--output-dir", ""], f"{ERROR} --output-dir: should be a folder, given nothing"),
    (["--output-dir", "{file}"], f"{ERROR} --output-dir: should be a folder, given "),
    (["--output-dir", "{file}/deeper/down"], f"{ERROR} --output-dir: should be a folder, given "),
]


@pytest.mark.parametrize(("words", "start"), COMMAND_LINES_OF_THE_ANALYSIS)
def test_bad_command_line_of_the_analysis_is_refused(training, capsys, monkeypatch, words, start):
    monkeypatch.chdir(training.parent)
    words = [word.replace("{file}", str(training / BASE)) for word in words]
    output = ["--output-dir", str(training.parent / "output")]
    said = refused(analyse_experiments.main, [*output, *words], capsys, training.parent)
    assert len(said) == 1 and start in said[0]
    assert said[0].startswith(start) or start.startswith("error")


@pytest.mark.parametrize("content", ["empty", "a bomb of aliases", "nothing but code"])
def test_bad_base_file_ends_the_analysis(training, capsys, monkeypatch, content):
    monkeypatch.chdir(training)
    (training / BASE).write_bytes(CONTENTS[content][0])
    words = ["--experiments", "analytical", "--output-dir", str(training.parent / "output")]
    said = refused(analyse_experiments.main, words, capsys, training.parent)
    assert len(said) == 1 and said[0].startswith(f"{training / BASE}{CONTENTS[content][1]}")


def test_debug_shows_where_an_error_comes_from(training):
    from utils.runs.loading import UserError

    for main, words in ((train.main, ["no_regularizer", "sed=1"]), (analyse_experiments.main, ["--experiments", "x"])):
        with pytest.raises(UserError):
            main([*words, "--debug"])


@pytest.mark.parametrize(
    ("words", "starts"),
    [
        (["sed=1", "max_epochs=0"], ["command line: max_epochs: should be", "command line: sed: unknown key"]),
        (["--from-scratch", "seed=x"], ["command line: seed: should be a valid integer"]),
        (["--nope"], ["run.sh: error: unrecognized arguments: --nope"]),
        (["seed=!!python/object/apply:os.mkdir [marker]"], ["command line: seed: tags (!name) are not read"]),
        (["--run-name", "../../x"], ["run name '../../x': should be letters"]),
        (["--debug", "sed=1"], None),
    ],
)
def test_same_holds_for_run_sh_which_removes_nothing(clone, tmp_path, words, starts):
    folder = clone / "training" / "no_regularizer"
    before = snapshot(folder)
    done = in_shell("bash", str(folder / "run.sh"), *words, cwd=tmp_path)
    assert snapshot(folder) == before and not list(tmp_path.iterdir())
    assert done.stdout == "" and ("Traceback" in done.stderr) == (starts is None)
    if starts is not None:
        assert done.returncode == 2
        said = [line for line in done.stderr.splitlines() if not line.startswith(("usage:", "   "))]
        assert len(said) == len(starts) and all(map(str.startswith, sorted(said), starts))
