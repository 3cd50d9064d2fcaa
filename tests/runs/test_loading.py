"""From YAML to a configuration: how words are read, how layers merge, and how each mistake is named in a line."""

import pytest

from utils.files import UserError
from utils.runs.loading import configure, read_configuration, read_yaml

BASE, SPECIFIC = "training/base_config.yaml", "training/no_regularizer/specific_config.yaml"
POSITIONS, GAUSSIANS = "toy_problem.equilibrium_relative_coordinates", "toy_problem.gaussians"
TAGS, LEVELS = "tags (!name) are not read; write a plain value", "more than 20 levels"
ALIASES = "aliases (*name) are not read; write the value out"
INVALID, FORM = "the value is not valid YAML", "should be key=value, for example regularizer.weight=1e-3"
UNKNOWN, INTEGER, BOOLEAN = "unknown key, given", "should be a valid integer, given", "should be a valid boolean, given"
CONSISTENCY = "regularizer={type: consistency, weight: 1, points: noised"
CODE = "!!python/object/apply:os.mkdir [marker]"
E_ACUTE = "\N{LATIN SMALL LETTER E WITH ACUTE}"

# one override or several, then how the line starts, or the lines, after "command line: "
OVERRIDES = {
    # keys
    "learning_rat=1": "learning_rat: unknown key (did you mean optimizer.learning_rate?), given 1",
    "score_network.typ=a": 'score_network.typ: unknown key (did you mean score_network.type?), given "a"',
    f"{GAUSSIANS}=[]": f"{GAUSSIANS}: {UNKNOWN} []",  # of the other type; the name of a class is no key
    "data={false: 2, 1: 3}": (f"data.1: {UNKNOWN} 3", f"data.false: {UNKNOWN} 2"),
    'data={"a\\nb": 2}': rf"data.a\nb: {UNKNOWN} 2",
    "data={[1]: 2}": "data: a key is no word",
    ("data.batch_size=5", "data={batch_size: 6}"): "data.batch_size: given twice",
    ("regularizer.weight=1", "regularizer=null"): "regularizer: given twice",
    "data={batch_size: 1, batch_size: 2}": "data: found duplicate key batch_size",
    # blocks and their types
    "noise_schedule.type=linear": ("noise_schedule.sigma_max: missing", "noise_schedule.sigma_min: missing"),
    "regularizer.weight=1": "regularizer.type: missing; no regularizer is set whose keys could be changed, so give its",
    "scheduler.type=cosin": "scheduler.type: should be one of 'plateau', 'cosine', 'constant', given \"cosin\"",
    "toy_problem.type=gaussian_mixture": f"{GAUSSIANS}: missing",
    "toy_problem=3": "toy_problem: should be a valid dictionary",
    "score_network=null": "score_network: should be a valid dictionary",
    # values
    "seed=1" + "0" * 5000: f'seed: {INTEGER} "1000',
    "max_epochs=1e3": f"max_epochs: {INTEGER} 1000.0",
    "data.batch_size.x=3": f'data.batch_size: {INTEGER} {{"x": 3}}',
    **{f"data.fresh_noise={word}": f'data.fresh_noise: {BOOLEAN} "{word}"' for word in ("yes", "no")},
    "seed=99999999999999999999": "seed: should be less than 9223372036854775808, given 99999999999999999999",
    "optimizer.learning_rate=.inf": "optimizer.learning_rate: should be a finite number, given Infinity",
    "noise_schedule.sigma_min=0.199": "noise_schedule: sigma_min must be smaller than sigma_max, by 1 % at least",
    f"{CONSISTENCY}, number_of_steps: 1}}": "regularizer.number_of_steps: should be greater than or equal to 2, given",
    f"{CONSISTENCY}, number_of_steps: 101}}": "regularizer: number_of_steps must not exceed time_steps",
    # the law
    f"{POSITIONS}=[0.1, 0.2]": (f"{POSITIONS}.0: should be a valid tuple", f"{POSITIONS}.1: should be a valid tuple"),
    f"{POSITIONS}=[[0.0], [0.9999999999]]": f"{POSITIONS}: two atoms sit at the same place",
    ("score_network.permutation_equivariant=false", "toy_problem.permutation_symmetric=true"): (
        "toy_problem.permutation_symmetric: should equal score_network.permutation_equivariant, given true"
    ),
    ("score_network.type=mlp", "regularizer={type: dual_score_matching, weight: 1}"): (
        'score_network.type: should be energy for dual_score_matching, given "mlp"'
    ),
    "score_network.permutation_equivariant=3": f"score_network.permutation_equivariant: {BOOLEAN} 3",
    # words that are no settings
    **{word: f"{word}: {FORM}" for word in ("seed", "", "=1", "data[0]=1")},
    "se\ned=1": rf"se\ned=1: {FORM}",
    "a" + ".a" * 3000 + "=1": "a.a.a.a",
    "seed=\x1b[31m": rf"seed=\x1b[31m: {INVALID}",
    "seed=\udcff": rf"seed=\udcff: {INVALID}",  # a byte of the command line that is no UTF-8
    "seed=" + "[" * 40_000: f"seed: {LEVELS}",  # where nodes are built by recursion, this would end Python itself
    "seed=&a [*a]": f"seed: {ALIASES}",
    "seed=!!int 5": f"seed: {TAGS}",
}


def complaint(overrides=(), experiment="no_regularizer"):
    with pytest.raises(UserError) as caught:
        configure(experiment, overrides)
    lines = str(caught.value).split("\n")
    assert all(line.isprintable() and len(line) < 400 for line in lines)
    return sorted(lines)


@pytest.mark.parametrize("overrides", OVERRIDES, ids=lambda given: str(given)[:60])
def test_bad_override_is_named_in_a_line_as_it_was_written(overrides):
    said, starts = complaint([overrides] if isinstance(overrides, str) else overrides), OVERRIDES[overrides]
    for line, start in zip(said, [starts] if isinstance(starts, str) else starts, strict=True):
        assert line.startswith(f"command line: {start}")


# what a file holds, then the one line after its name
CONTENTS = {
    "a comment": ("# nothing\n", ": should hold `key: value` pairs, but is empty"),
    "a list": ("- 1\n- 2\n", ": should hold `key: value` pairs, given a list"),
    "a tab": ("data:\n\tbatch_size: 1\n", ", line 2: found character that cannot start any token"),
    "zeros": (bytes(100), ": unacceptable character #x0000"),
    "Latin-1": (f"{E_ACUTE}: 1\n".encode("latin-1"), ": 'utf-8' codec can't decode byte 0xe9"),
    "a nest without end": ("[" * 100_000, f", line 1: {LEVELS}"),
    "code": (f"seed: 1\nregularizer: {CODE}\n", f", line 2: {TAGS}"),
}


@pytest.mark.parametrize("content", CONTENTS)
def test_file_that_is_no_configuration_is_named_with_the_line(training, monkeypatch, content):
    monkeypatch.chdir(training)  # where a marker would be
    written, rest = CONTENTS[content]
    for path in (training.parent / SPECIFIC, training.parent / BASE):
        path.write_bytes(written if isinstance(written, bytes) else written.encode())
        (said,) = complaint()
        assert said.startswith(f"{path}{rest}")
    assert not (training / "marker").exists()


def test_every_fault_gets_its_line_with_the_layer_that_it_is_from_and_so_does_a_missing_file(training):
    path = training.parent / SPECIFIC
    path.write_text("data: {batch_size: a}\nregularizer: null\nmax_epochs: 0\n")
    assert complaint(["sed=1", "max_epochs=-1"]) == [
        "command line: max_epochs: should be greater than or equal to 1, given -1",
        "command line: sed: unknown key (did you mean seed?), given 1",
        f'{SPECIFIC}: data.batch_size: {INTEGER} "a"',
    ]
    path.unlink()
    with pytest.raises(UserError, match=f"^{path}: No such file or directory$"):
        read_configuration(path)
    path.mkdir()
    assert complaint() == [f"{path}: Is a directory"]


IN_FILES = [  # what is there, what is written instead, and how the line after the file's name starts
    (BASE, "  batch_size: 512", "", "data.batch_size: missing"),
    (BASE, "type: cosine", "typ: cosine", "scheduler.type: missing; no scheduler is set"),
    (SPECIFIC, "regularizer: null", f"{E_ACUTE}: 1", f"{E_ACUTE}: {UNKNOWN} 1"),
]


@pytest.mark.parametrize(("file", "old", "new", "start"), IN_FILES)
def test_bad_setting_in_a_file_is_named_with_the_file(training, file, old, new, start):
    path = training.parent / file
    path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    (said,) = complaint(["max_epochs=5", "optimizer.weight_decay=0"])
    assert said.startswith(f"{file}: {start}")


WORDS = {  # as they stand in a file -> as they are read
    **{"010": 10, "+5": 5, "1e-3": 0.001, "1E5": 1e5, "5.": 5.0, "-.5": -0.5, "-.inf": -float("inf"), "5  # five": 5},
    **{"true": True, "False": False, "TRUE": True, "null": None, "~": None, "": None, "Null": None},
    **{word: word for word in ("yes", "no", "on", "Off", "y", "N", "tRue", "0x10", "0o17", "1_000", "1:30")},
    **{word: word for word in ("2020-01-01", "1e", "e5", "1.2.3", "--1", ".", "inf", "nan", "a b", "=", "<<", E_ACUTE)},
    **{"9" * 99: 10**99 - 1, "9" * 101: "9" * 101},
    **{"'5'": "5", '"true"': "true", "''": "", '"\\u0041"': "A", "|\n    5\n": "5\n", "[]": [], "{}": {}},
    **{"[1, a, ~, [.5]]": [1, "a", None, [0.5]], "{a: 1, 2: yes}": {"a": 1, "2": "yes"}},
}


@pytest.mark.parametrize("word", WORDS)
def test_words_without_quotes_are_numbers_true_false_null_or_text(tmp_path, word):
    """As in YAML 1.2: octal, hexadecimal and base 60 numbers, yes and no, and dates are text."""
    for mark in ("", "\ufeff"):  # a byte order mark, as some editors write it
        (tmp_path / "a.yaml").write_text(f"{mark}key: {word}\n", encoding="utf-8")
        found = read_yaml(tmp_path / "a.yaml")["key"]
        assert found == WORDS[word] and type(found) is type(WORDS[word])


def test_layers_merge_deeply_the_last_word_counts_and_another_type_discards_the_keys_of_the_old_one(training):
    text = "regularizer: null\ndata: {batch_size: 7, training_set_size: 70}\nseed: 7\n"
    (training.parent / SPECIFIC).write_text(text)
    plain, ours = configure("analytical"), configure("no_regularizer", ["data={batch_size: 8}", "max_epochs=010"])
    data = plain.data.model_copy(update={"batch_size": 8, "training_set_size": 70})
    assert ours == plain.model_copy(update={"seed": 7, "max_epochs": 10, "data": data})
    for word in ("scheduler.type=constant", "scheduler={type: constant}"):
        assert configure("no_regularizer", [word]).scheduler.model_dump() == {"type": "constant"}
    again = configure("no_regularizer", ["noise_schedule.type=exponential", "noise_schedule.sigma_max=0.3"])
    assert again.noise_schedule.model_dump() == {"type": "exponential", "sigma_min": 0.001, "sigma_max": 0.3}
