"""A table of settings as the parameters of a node.

``Parameters(node, Table)`` declares every setting of a table (:mod:`mast3r_ros.tables`), refuses wrong values with a
message that says what would be right, and hands out the table as a whole: one frame sees one set of values.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Generic

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.exceptions import InvalidParameterValueException, ParameterException
from rclpy.node import Node
from rclpy.parameter import Parameter

from mast3r_ros.errors import SettingsError
from mast3r_ros.tables import Setting, Table, build, settings_of


class ParameterError(SettingsError):
    """A parameter that was given a value it cannot have."""


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
        self._known = {entry.name: entry for entry in settings_of(table)}
        self._lock = threading.Lock()
        self._frozen = False
        self._current: Table | None = None
        node.add_on_set_parameters_callback(self._judge)
        self._declare()
        # Humble's nodes do not tell when a value has been set: there the values are read each time.
        self._told = hasattr(node, "add_post_set_parameters_callback")
        if self._told:
            node.add_post_set_parameters_callback(self._forget)

    def snapshot(self) -> Table:
        """All values at this moment, in the table's own types."""
        with self._lock:
            if self._current is not None and self._told:
                return self._current
            values = {name: self._node.get_parameter(name).value for name in self._known}
            self._current = build(self._table, values)
            return self._current

    def freeze(self, frozen: bool) -> None:
        """While frozen, changes of ``fixed`` parameters are refused."""
        with self._lock:
            self._frozen = frozen

    def _forget(self, parameters: Iterable[Parameter]) -> None:
        with self._lock:
            self._current = None

    def _declare(self) -> None:
        refused = []
        for name, entry in self._known.items():
            if self._node.has_parameter(name):
                continue
            try:
                self._node.declare_parameter(name, entry.default, self._descriptor(entry))
            except InvalidParameterValueException as error:
                refused.append(str(error).partition("Reason: ")[2].removesuffix(f": {name}"))
            except ParameterException as error:
                refused.append(f"{name}: {error}")
        if refused:
            raise ParameterError("; ".join(refused))

    def _descriptor(self, entry: Setting) -> ParameterDescriptor:
        spec = entry.spec
        # Dynamic typing: `max_rate: 10` in a YAML file means 10.0; the type is checked by _judge, in words.
        descriptor = ParameterDescriptor(description=spec.sentence, dynamic_typing=True)
        notes = [spec.allowed] if spec.allowed else []
        if spec.fixed:
            notes.append("can be changed only while the node is unconfigured" if self._managed else "read at start")
        descriptor.additional_constraints = "; ".join(notes)
        if spec.low is not None and spec.high is not None:
            if entry.kind is float:
                descriptor.floating_point_range = [
                    FloatingPointRange(from_value=float(spec.low), to_value=float(spec.high))
                ]
            elif entry.kind is int:
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
        entry = self._known.get(name)
        if entry is None:
            return ""
        if complaint := entry.spec.complaint(name, entry.kind, value):
            return complaint
        with self._lock:
            frozen = self._frozen and entry.spec.fixed
        if frozen and entry.spec.as_word(value) != entry.spec.as_word(self._node.get_parameter(name).value):
            if not self._managed:
                return f"parameter {name} is read at start: start the node anew with another value"
            return (
                f"parameter {name} is read when the node is configured: deactivate and clean up the node "
                "(ros2 lifecycle set), change it, and configure again"
            )
        return ""
