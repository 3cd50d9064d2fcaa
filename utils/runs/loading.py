"""From YAML to a configuration, and a line on each mistake: where it stands, which key it is, what was given.

A configuration is layered: base_config.yaml, the experiment's specific_config.yaml, `key=value` pairs. YAML is read as
plain values: a word without quotes is a number, true, false or null where it looks like one in YAML 1.2, else text.
"""

import contextlib
import difflib
import functools
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError
from yaml import MarkedYAMLError

from utils.files import UserError
from utils.runs import run as runs
from utils.runs.configuration import Configuration, flat
from utils.settings import Settings

Schema = TypeVar("Schema", bound=Settings)
WORDS: dict[str, bool | None] = dict.fromkeys(["", "~", "null", "Null", "NULL"])
WORDS |= dict.fromkeys(["true", "True", "TRUE"], True) | dict.fromkeys(["false", "False", "FALSE"], False)
INTEGER = re.compile(r"[-+]?[0-9]+")
FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
MAX_LEVELS, MAX_DIGITS = 20, 100  # of a file's blocks; of a whole number, what is longer stays text


class NotPlain(MarkedYAMLError):
    """YAML that is more than plain values."""

    def __init__(self, problem: str, where: Any):  # a node or an event
        super().__init__(problem=problem, problem_mark=where.start_mark)


def configure(experiment: str, overrides: Iterable[str] = (), origin: str = "command line") -> Configuration:
    """Return the configuration of an experiment; raises UserError, a line a fault. `origin` names the overrides."""
    layers = {"training/base_config.yaml": read_yaml(runs.TRAINING / "base_config.yaml")}
    if experiment != runs.ANALYTICAL:
        specific = runs.experiment_folder(experiment) / "specific_config.yaml"
        layers[specific.relative_to(runs.ROOT).as_posix()] = read_yaml(specific)
    layers[origin] = _read_overrides(overrides, origin)
    return validated(layers, Configuration)


def read_configuration(path: Path) -> Configuration:
    """Return the configuration in a run's config.yaml; raises UserError with one line per fault."""
    return read_settings(path, Configuration)


def read_settings(path: Path, schema: type[Schema]) -> Schema:
    """Return the settings in a YAML file; raises UserError with one line per fault."""
    return validated({str(path): read_yaml(path)}, schema)


def read_yaml(path: Path) -> dict:
    """Return the `key: value` pairs of a file; raises UserError where it has none."""
    try:
        content = _parse(path.read_text(encoding="utf-8-sig"))
    except MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"{path}{line}: {error.problem}") from error
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise UserError(f"{path}: {getattr(error, 'strerror', None) or str(error).splitlines()[0]}") from error
    if not isinstance(content, dict):
        given = "a list" if isinstance(content, list) else _on_a_line(str(content))
        fault = "but is empty" if content is None else f"given {given}"
        raise UserError(f"{path}: should hold `key: value` pairs, {fault}")
    return content


def _parse(text: str) -> Any:
    """Return the value of a YAML text; raises yaml.YAMLError for what is no YAML, or more than plain values."""
    loader, level = getattr(yaml, "CSafeLoader", yaml.SafeLoader), 0
    for event in yaml.parse(text, Loader=loader):  # before there are nodes: libyaml's recursion would end Python
        level += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if level > MAX_LEVELS:
            raise NotPlain(f"more than {MAX_LEVELS} levels", event)
        if isinstance(event, yaml.AliasEvent):
            raise NotPlain("aliases (*name) are not read; write the value out", event)
        if getattr(event, "tag", None) not in (None, "!"):
            raise NotPlain("tags (!name) are not read; write a plain value", event)
    node = yaml.compose(text, Loader=loader)
    return None if node is None else _value(node)


def _value(node: yaml.Node) -> Any:
    if isinstance(node, yaml.SequenceNode):
        return [_value(entry) for entry in node.value]
    if isinstance(node, yaml.ScalarNode):
        return node.value if node.style else _word(node.value)
    content: dict[str, Any] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise NotPlain("a key is no word", key)
        if key.value in content:
            raise NotPlain(f"found duplicate key {key.value}", key)
        content[key.value] = _value(value)
    return content


def _word(text: str) -> Any:
    if text in WORDS:
        return WORDS[text]
    if INTEGER.fullmatch(text):
        return int(text) if len(text) <= MAX_DIGITS else text
    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan")) if FLOAT.fullmatch(text) else text


def _read_overrides(overrides: Iterable[str], origin: str) -> dict:
    layer: dict = {}
    for pair in overrides:
        key, equals, value = pair.partition("=")
        if not equals or not re.fullmatch(rf"\w+(\.\w+){{0,{MAX_LEVELS}}}", key):
            raise UserError(f"{origin}: {_on_a_line(pair)}: should be key=value, for example regularizer.weight=1e-3")
        try:
            given = _parse(value)
        except NotPlain as error:
            raise UserError(f"{origin}: {_on_a_line(key)}: {_on_a_line(str(error.problem))}") from error
        except (yaml.YAMLError, UnicodeError) as error:
            raise UserError(f"{origin}: {_on_a_line(pair)}: the value is not valid YAML") from error
        for part in reversed(key.split(".")):
            given = {part: given}
        for leaf in flat(given):  # also where one is written as a={b: 1}, the other as a.b=1
            if any(f"{leaf}.".startswith(f"{other}.") or f"{other}.".startswith(f"{leaf}.") for other in flat(layer)):
                raise UserError(f"{origin}: {_on_a_line(leaf)}: given twice")
        layer = _merge(layer, given)
    return layer


def _merge(lower: dict, upper: dict) -> dict:
    """Merge deeply; a block that is given another `type` starts anew, for its old keys belong to the old type."""
    merged = lower | upper
    for key in lower.keys() & upper.keys():
        old, new = lower[key], upper[key]
        blocks = isinstance(old, dict) and isinstance(new, dict)
        if blocks and old.get("type", new.get("type")) == new.get("type", old.get("type")):
            merged[key] = _merge(old, new)
    return merged


def validated(layers: Mapping[str, dict], schema: type[Schema]) -> Schema:
    """Return the settings that named layers make, later ones first; raises UserError with one line per fault."""
    merged = functools.reduce(_merge, layers.values())
    try:
        return schema.model_validate(merged)
    except ValidationError as error:
        raise UserError("\n".join(_describe(fault, merged, layers, schema) for fault in error.errors())) from error


def _describe(fault: Mapping[str, Any], merged: dict, layers: Mapping[str, dict], schema: type[Settings]) -> str:
    """Return one line on one of pydantic's faults: origin, key as the user wrote it, what is wrong, what was given."""
    kind, keys, given = fault["type"], _without_union_tags(fault["loc"], merged), fault["input"]
    text = fault["msg"].removeprefix("Value error, ").replace("Input should", "should")
    if kind == "missing":
        return f"{_origin(layers, keys[:-1])}: {_on_a_line('.'.join(keys))}: missing"
    if kind == "union_tag_not_found":
        why = f"no {keys[-1]} is set whose keys could be changed, so give its type as well"
        return f"{_origin(layers, keys)}: {_on_a_line('.'.join([*keys, 'type']))}: missing; {why}"
    if kind == "disagreement":
        keys, given = fault["ctx"]["keys"], fault["ctx"]["given"]
    elif kind == "union_tag_invalid":
        keys, given, text = [*keys, "type"], given["type"], f"should be one of {fault['ctx']['expected_tags']}"
    elif kind == "extra_forbidden":
        blocks = (everything := schema.model_json_schema(), *everything.get("$defs", {}).values())
        known = {key for block in blocks for key in block.get("properties", ())} - {keys[-1]}
        text = "unknown key"
        if close := difflib.get_close_matches(keys[-1], known, n=1):
            here = ".".join([*keys[:-1], *close])
            places = [name for name in flat(merged) if name.rpartition(".")[2] == close[0]]
            text += f" (did you mean {places[0] if len(places) == 1 else here}?)"
    shown = _on_a_line(json.dumps(given, default=str))
    return f"{_origin(layers, keys)}: {_on_a_line('.'.join(keys))}: {text}, given {shown}"


def _without_union_tags(location: tuple, merged: dict) -> list[str]:
    """Drop the tags that pydantic adds for a union: the user never wrote them."""
    keys: list[str] = []
    node: Any = merged
    for part in location:
        tags = (node["type"],) if isinstance(node, dict) and "type" in node else ("gaussian", "mlp")  # of old runs
        if not isinstance(node, dict) or part in node or part not in tags:
            keys.append(str(part))
            with contextlib.suppress(TypeError, KeyError, IndexError):
                node = node[part]
    return keys


def _origin(layers: Mapping[str, dict], keys: list[str]) -> str:
    """Return the name of the uppermost of the layers that hold the longest part of the key."""
    best, longest = next(iter(layers)), 1
    for name, layer in layers.items():
        node, depth = layer, 0
        while depth < len(keys) and isinstance(node, dict) and keys[depth] in node:
            node, depth = node[keys[depth]], depth + 1
        if depth >= longest:
            best, longest = name, depth
    return best


def _on_a_line(text: str) -> str:
    """Return text that was given, short, and without what would break a line or colour a terminal."""
    text = text if text.isprintable() else repr(text)[1:-1]
    return text if len(text) <= 100 else text[:97] + "..."
