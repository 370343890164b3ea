"""Tables of settings: frozen dataclasses whose fields say everything about a setting, once.

A field made with :func:`setting` has a type, a default, a sentence, a range and a unit; one made with :func:`group`
holds a table of its own. ROS parameters, parameter files, command line options and documentation are made from tables.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import yaml

from mast3r_ros.errors import SettingsError
from mast3r_ros.plain_yaml import read_yaml

Table = TypeVar("Table")

_TYPE_NAMES: dict[type, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
#: Parameters of every ROS node, which say nothing to the program itself.
_OF_EVERY_NODE = ("use_sim_time", "qos_overrides.", "start_type_description_service")


@dataclass(frozen=True)
class Spec:
    """What a setting may be.

    Attributes:
        sentence: what it does, for people (shown by ``ros2 param describe`` and ``--help``).
        low, high: closed range of a number.
        choices: the allowed texts.
        unit: unit of a number.
        fixed: it cannot be changed while the node is configured (it is read in *configure*).
    """

    sentence: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    unit: str = ""
    fixed: bool = False

    @property
    def allowed(self) -> str:
        """The allowed values in words; empty where anything of the type will do."""
        unit = f" {self.unit}" if self.unit else ""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        if self.low is not None and self.high is not None:
            return f"between {self.low:g} and {self.high:g}{unit}"
        return ""

    def as_word(self, value: Any) -> Any:
        """YAML's ``true``, and ``on`` too, is no text: where both words are among the choices, they are meant."""
        if isinstance(value, bool) and {"true", "false"} <= set(self.choices):
            return str(value).lower()
        return value

    def complaint(self, name: str, kind: type, value: Any) -> str:
        """Why a value is refused and what would be right; empty if it is fine."""
        value = self.as_word(value)
        right = self.allowed if self.choices else f"{_TYPE_NAMES[kind]} {self.allowed}".strip()
        fits = _is(kind, value)
        if fits and self.choices:
            fits = value in self.choices
        elif fits and self.low is not None and self.high is not None:
            fits = self.low <= value <= self.high
        return "" if fits else f"parameter {name} must be {right}, got {value!r}"


@dataclass(frozen=True)
class Setting:
    """One setting of a table: its name, where it is in the tree, its type, default and specification."""

    name: str
    path: tuple[str, ...]
    kind: type
    default: Any
    spec: Spec


def setting(
    default: Any,
    sentence: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: Sequence[str] = (),
    unit: str = "",
    fixed: bool = False,
) -> Any:
    """A field of a table of settings. Give numbers both ends of a range."""
    return dataclasses.field(default=default, metadata={"spec": Spec(sentence, low, high, tuple(choices), unit, fixed)})


#: A setting that is read when a node is configured.
at_start = partial(setting, fixed=True)


def group(table: type, prefix: str = "") -> Any:
    """A field that holds a table of its own; ``prefix`` stands before the names of its settings."""
    return dataclasses.field(default_factory=table, metadata={"prefix": prefix})


def settings_of(table: type) -> tuple[Setting, ...]:
    """Every setting of a table and of the tables in it. Fields that are neither are passed over."""
    known: Any = table  # mypy takes a class for as hashable as its instances
    return _settings_of(known)


@cache
def _settings_of(table: Any) -> tuple[Setting, ...]:
    types, found = get_type_hints(table), list[Setting]()
    for f in dataclasses.fields(table):
        if "spec" in f.metadata:
            found.append(Setting(f.name, (f.name,), types[f.name], f.default, f.metadata["spec"]))
        elif "prefix" in f.metadata:
            prefix = f.metadata["prefix"]
            for inner in settings_of(types[f.name]):
                name = f"{prefix}.{inner.name}" if prefix else inner.name
                found.append(dataclasses.replace(inner, name=name, path=(f.name, *inner.path)))
    return tuple(found)


def build(table: type[Table], values: Mapping[str, Any]) -> Table:
    """A table with these values by name, in the table's own types; the others are at their defaults."""
    return changed(table(), values)


def changed(table: Table, values: Mapping[str, Any]) -> Table:
    """The same table with other values by name, in the table's own types."""
    made: Any = table
    for entry in settings_of(type(table)):
        if entry.name in values:
            made = _with(made, entry.path, entry.kind(entry.spec.as_word(values[entry.name])))
    return made  # type: ignore[no-any-return]


def values_of(table: Any) -> dict[str, Any]:
    """Every setting of a table by its name."""
    found = {}
    for entry in settings_of(type(table)):
        value = table
        for part in entry.path:
            value = getattr(value, part)
        found[entry.name] = value
    return found


def read_parameters(path: Path, node: str) -> dict[str, Any]:
    """What a ROS parameter file says to a node, by name.

    Sections that begin with other nodes' names, and parameters that every node has, are left out.

    Raises:
        SettingsError: for a file that cannot be read or is no parameter file.
    """
    try:
        document = read_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not YAML: {error}") from error
    expected = f"expected\n  {node}:\n    ros__parameters:\n      name: value"
    if document is not None and not isinstance(document, dict):
        raise SettingsError(f"{path} is no parameter file: {expected}")
    found: dict[str, Any] = {}
    sections = 0
    for name, section in _sections(document or {}, ""):
        sections += 1
        if name.rsplit("/", 1)[-1] in (node, "*", "**"):
            found |= _flat(section, "")
    if document and not sections:
        raise SettingsError(f"{path} is no parameter file: {expected}")
    return {name: value for name, value in found.items() if not name.startswith(_OF_EVERY_NODE)}


def as_yaml(table: type, values: Mapping[str, Any] | None = None) -> str:
    """A table as the body of a parameter file (below ``ros__parameters:``), by default with its defaults."""
    lines = []
    for entry in settings_of(table):
        spec, value = entry.spec, (values or {}).get(entry.name, entry.default)
        lines.append(f"    # {spec.sentence}{f' ({spec.allowed})' if spec.allowed else ''}")
        lines.append(f"    {entry.name}: {json.dumps(value)}")
    return "\n".join(lines)


def as_markdown(table: type, managed: bool = True) -> str:
    """A table as a Markdown table, for the documentation. ``managed``: fixed ones can be changed after a cleanup."""
    lines = ["| parameter | type | default | allowed | what it does |", "|---|---|---|---|---|"]
    for entry in settings_of(table):
        spec, default = entry.spec, entry.default
        shown = f'`"{default}"`' if isinstance(default, str) else f"`{default!r}`"
        mark = " *" if spec.fixed else ""
        lines.append(f"| `{entry.name}`{mark} | {entry.kind.__name__} | {shown} | {spec.allowed} | {spec.sentence} |")
    when = "when the node is configured; cannot be changed before it is cleaned up" if managed else "at start"
    return "\n".join([*lines, "", f"\\* read {when}."])


def _with(table: Any, path: tuple[str, ...], value: Any) -> Any:
    if len(path) > 1:
        value = _with(getattr(table, path[0]), path[1:], value)
    return dataclasses.replace(table, **{path[0]: value})


def _sections(document: Mapping[Any, Any], above: str) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    """(name of the node, its parameters) of a parameter file, whose namespaces may be nested or written out."""
    for name, content in document.items():
        if not isinstance(content, dict):
            continue
        if name == "ros__parameters":
            yield above, content
        else:
            yield from _sections(content, f"{above}/{str(name).strip('/')}")


def _flat(section: Mapping[Any, Any], prefix: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in section.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def _is(kind: type, value: Any) -> bool:
    """Whether a value can stand where the type is asked for; whole numbers are numbers, NaN is none."""
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind)
