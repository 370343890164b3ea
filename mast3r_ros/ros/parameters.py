"""Node parameters as a typed, declarative table.

A table is a frozen dataclass whose fields are made with :func:`param`: the annotation is the type, the rest is
default, sentence, range and choices. ``Parameters(node, Table)`` declares them all, refuses wrong values with a
message that says what would be right, and hands out immutable snapshots: one frame sees one set of values.
"""

from __future__ import annotations

import dataclasses
import json
import math
import threading
from collections.abc import Iterable, Sequence
from typing import Any, Generic, TypeVar, get_type_hints

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.exceptions import InvalidParameterValueException, ParameterException
from rclpy.node import Node
from rclpy.parameter import Parameter

from mast3r_ros.errors import UserError

Table = TypeVar("Table")

_TYPE_NAMES: dict[type, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


class ParameterError(UserError):
    """A parameter that was given a value it cannot have."""


@dataclasses.dataclass(frozen=True)
class Spec:
    """What a parameter may be.

    Attributes:
        sentence: what it does, for people (shown by ``ros2 param describe``).
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


def param(
    default: Any,
    sentence: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: Sequence[str] = (),
    unit: str = "",
    fixed: bool = False,
) -> Any:
    """A field of a parameter table. Give numbers both ends of a range."""
    return dataclasses.field(default=default, metadata={"spec": Spec(sentence, low, high, tuple(choices), unit, fixed)})


def ros_name(field_name: str) -> str:
    """Field ``initial_pose__x`` is parameter ``initial_pose.x``."""
    return field_name.replace("__", ".")


class Parameters(Generic[Table]):
    """Declares a table's parameters on a node and guards them from then on.

    Args:
        managed: the node has a lifecycle, in which ``fixed`` parameters can be changed again.

    Raises:
        ParameterError: listing every value from the launch or parameter file that is refused.
    """

    def __init__(self, node: Node, table: type[Table], managed: bool = True) -> None:
        self._node = node
        self._managed = managed
        self._table = table
        self._types = get_type_hints(table)
        self._fields = {ros_name(f.name): f for f in dataclasses.fields(table)}  # type: ignore[arg-type]
        self._lock = threading.Lock()
        self._frozen = False
        node.add_on_set_parameters_callback(self._judge)
        self._declare()

    def snapshot(self) -> Table:
        """All values at this moment, in the table's own types."""
        values = {
            f.name: self._types[f.name](_as_word(self._spec(name), self._node.get_parameter(name).value))
            for name, f in self._fields.items()
        }
        return self._table(**values)

    def freeze(self, frozen: bool) -> None:
        """While frozen, changes of ``fixed`` parameters are refused."""
        with self._lock:
            self._frozen = frozen

    def _declare(self) -> None:
        refused = []
        for name, f in self._fields.items():
            if self._node.has_parameter(name):
                continue
            try:
                self._node.declare_parameter(name, f.default, self._descriptor(name))
            except InvalidParameterValueException as error:
                refused.append(str(error).partition("Reason: ")[2].removesuffix(f": {name}"))
            except ParameterException as error:
                refused.append(f"{name}: {error}")
        if refused:
            raise ParameterError("; ".join(refused))

    def _descriptor(self, name: str) -> ParameterDescriptor:
        spec, kind = self._spec(name), self._kind(name)
        # Dynamic typing: `max_rate: 10` in a YAML file means 10.0; the type is checked by _judge, in words.
        descriptor = ParameterDescriptor(description=spec.sentence, dynamic_typing=True)
        notes = [spec.allowed] if spec.allowed else []
        if spec.fixed:
            notes.append("can be changed only while the node is unconfigured" if self._managed else "read at start")
        descriptor.additional_constraints = "; ".join(notes)
        if spec.low is not None and spec.high is not None:
            if kind is float:
                descriptor.floating_point_range = [
                    FloatingPointRange(from_value=float(spec.low), to_value=float(spec.high))
                ]
            elif kind is int:
                descriptor.integer_range = [IntegerRange(from_value=int(spec.low), to_value=int(spec.high))]
        return descriptor

    def _judge(self, parameters: Iterable[Parameter]) -> SetParametersResult:
        for parameter in parameters:
            complaint = self._complaint(parameter)
            if complaint:
                return SetParametersResult(successful=False, reason=complaint)
        return SetParametersResult(successful=True)

    def _complaint(self, parameter: Parameter) -> str:
        """Why a new value is refused and what would be right; empty if it is fine."""
        name, value = parameter.name, parameter.value
        if name not in self._fields:
            return ""
        spec, kind = self._spec(name), self._kind(name)
        value = _as_word(spec, value)
        right = f"{_TYPE_NAMES[kind]} {spec.allowed}".strip()
        if not _is(kind, value):
            return f"parameter {name} must be {right}, got {value!r}"
        if spec.choices and value not in spec.choices:
            return f"parameter {name} must be {spec.allowed}, got {value!r}"
        if spec.low is not None and spec.high is not None and not spec.low <= value <= spec.high:
            return f"parameter {name} must be {right}, got {value!r}"
        with self._lock:
            frozen = self._frozen and spec.fixed
        if frozen and value != _as_word(spec, self._node.get_parameter(name).value):
            if not self._managed:
                return f"parameter {name} is read at start: start the node anew with another value"
            return (
                f"parameter {name} is read when the node is configured: deactivate and clean up the node "
                "(ros2 lifecycle set), change it, and configure again"
            )
        return ""

    def _spec(self, name: str) -> Spec:
        spec: Spec = self._fields[name].metadata["spec"]
        return spec

    def _kind(self, name: str) -> type:
        kind: type = self._types[self._fields[name].name]
        return kind


def _is(kind: type, value: Any) -> bool:
    """Whether a value can stand where the type is asked for; whole numbers are numbers, NaN is none."""
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind)


def _as_word(spec: Spec, value: Any) -> Any:
    """YAML's ``true``, and ``on`` too, is no text: where both words are among the choices, they are meant."""
    if isinstance(value, bool) and {"true", "false"} <= set(spec.choices):
        return str(value).lower()
    return value


def as_markdown(table: type, managed: bool = True) -> str:
    """The table as a Markdown table, for the documentation. ``managed``: as in :class:`Parameters`."""
    types = get_type_hints(table)
    lines = ["| parameter | type | default | allowed | what it does |", "|---|---|---|---|---|"]
    for f in dataclasses.fields(table):
        spec: Spec = f.metadata["spec"]
        mark = " *" if spec.fixed else ""
        default = f"`{f.default!r}`" if not isinstance(f.default, str) else f'`"{f.default}"`'
        lines.append(
            f"| `{ros_name(f.name)}`{mark} | {types[f.name].__name__} | {default} | {spec.allowed} | {spec.sentence} |"
        )
    when = "when the node is configured; cannot be changed before it is cleaned up" if managed else "at start"
    return "\n".join([*lines, "", f"\\* read {when}."])


def as_yaml(table: type) -> str:
    """The table with its defaults as the body of a parameter file (below ``ros__parameters:``)."""
    lines = []
    for f in dataclasses.fields(table):
        spec: Spec = f.metadata["spec"]
        lines.append(f"    # {spec.sentence}{f' ({spec.allowed})' if spec.allowed else ''}")
        lines.append(f"    {ros_name(f.name)}: {json.dumps(f.default)}")
    return "\n".join(lines)
