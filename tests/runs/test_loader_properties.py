"""Random overrides and files (hypothesis): a configuration, or a UserError in lines that can be read; nothing else.

The cases are the same in every run. Others: `pytest tests/runs/test_loader_properties.py --hypothesis-profile=wide`.
"""

from string import ascii_lowercase

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.files import UserError
from utils.runs.configuration import flat
from utils.runs.loading import configure, read_configuration
from utils.settings import Settings

EXPERIMENT = "fokker_planck_regularizer"
KEYS = sorted(flat(configure(EXPERIMENT).as_dict()))
WORDS = st.sampled_from([*KEYS, *{part for key in KEYS for part in key.split(".")}, "type"]) | st.text()
SPECIAL = ["linear", "cosine", "consistency", "gaussian_mixture", "${seed}", "1e400", "0x", "~", "&a", "*a", "!b", "<<"]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(SPECIAL),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=6,
)
few = settings(max_examples=settings().max_examples // 8)


def is_taken_or_refused(read):
    """Whether what is refused is refused in lines that can be read."""
    try:
        return isinstance(read(), Settings)
    except UserError as error:
        return all(line.strip() and line.isprintable() and ":" in line for line in str(error).split("\n"))


@few
@given(st.lists(st.tuples(WORDS, VALUES | st.text()), min_size=1, max_size=3))
def test_any_override_is_taken_or_refused(pairs):
    words = [f"{key}={value if isinstance(value, str) else yaml.safe_dump(value)}" for key, value in pairs]
    assert is_taken_or_refused(lambda: configure(EXPERIMENT, words))


@few
@given(st.binary(max_size=60) | st.text(alphabet=ascii_lowercase + "{}[]:,&*!|>-?'\"#%@ \n\t$.01", max_size=60))
def test_any_file_is_taken_or_refused(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "config.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert is_taken_or_refused(lambda: read_configuration(path))
