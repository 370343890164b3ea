"""How things go wrong: values at the edge of their type, bytes turned over, cut, repeated and left out."""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np

Rng = np.random.Generator

#: Texts that a file name, a frame id or an encoding may be.
TEXTS = (
    *("", " ", "/", ".", "..", "../canary/secret", "/etc/passwd", "a/b", "\\", "~", "con", "\n", "\u2028", "ü", "\x01"),
    *("%s%s", "'; --", "$(touch x)", "nan", "None", "0", "-1", "x" * 300, "x" * 70_000, "map", "camera_optical"),
    *("rgb8", "bgr8", "mono8", "mono16", "16UC1", "32FC1", "bayer_rggb8", "nv12", "yuv422", "8UC4", "64FC9", "rgba16"),
    *("jpeg", "png", "tiff", "rgb8; jpeg compressed bgr8", "16UC1; compressedDepth png", "16UC1; compressedDepth rvl"),
    *("plumb_bob", "rational_polynomial", "equidistant", "fisheye", "thin_prism", "unknown"),
)
NUMBERS = (0.0, -0.0, 1.0, -1.0, 0.5, 2.0, 1e-300, 1e-9, 1e9, 1e38, 1e308, -1e308, math.nan, math.inf, -math.inf)
_INTEGER = re.compile(r"(u?)int(8|16|32|64)|octet|byte|char|boolean")


def any_number(rng: Rng, value: float) -> float:
    """Another float."""
    if rng.random() < 0.3:
        return float(value * rng.choice([0.01, 0.5, 0.9, 1.1, 2, 100, -1]))
    return float(NUMBERS[rng.integers(len(NUMBERS))])


def any_integer(rng: Rng, value: int, low: int, high: int) -> int:
    """Another whole number within a type's range."""
    near = (value + 1, value - 1, value * 2, value // 2, -value, value ^ 1 << int(rng.integers(32)))
    edges = (0, 1, low, high, high - 1, 255, 65535, 2**31 - 1, int(rng.integers(0, 2**31)))
    chosen = (*near, *edges)[rng.integers(len(near) + len(edges))]
    return int(min(max(chosen, low), high))


def any_text(rng: Rng) -> str:
    """Another text."""
    return TEXTS[rng.integers(len(TEXTS))]


def any_bytes(rng: Rng, data: bytes) -> bytes:
    """The same bytes with something wrong."""
    if not data:
        return rng.bytes(int(rng.integers(1, 64)))
    kind, at = rng.integers(8), int(rng.integers(len(data)))
    size = int(rng.integers(1, 1 + min(len(data), 2 ** int(rng.integers(1, 17)))))
    if kind == 0:
        return data[:at]
    if kind == 1:
        return data[:at] + data[at + size :]
    if kind == 2:
        return data[:at] + rng.bytes(size) + data[at:]
    if kind == 3:
        return data + data[at : at + size]
    if kind == 4:  # a length or an offset
        word = int(rng.choice([0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, len(data)])).to_bytes(4, "little")
        return data[:at] + word[:: int(rng.choice([1, -1]))] + data[at + 4 :]
    changed = bytearray(data)
    if kind == 5:
        changed[at : at + size] = bytes(len(changed[at : at + size]))
        return bytes(changed)
    for _ in range(int(rng.integers(1, 9))):
        changed[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def mutate_message(rng: Rng, message: Any) -> str:
    """Change one field of a ROS message in place, within what its type can carry; the field's name."""
    fields = message.get_fields_and_field_types()
    name = list(fields)[rng.integers(len(fields))]
    kind, value = fields[name], getattr(message, name)
    if hasattr(value, "get_fields_and_field_types"):
        return f"{name}.{mutate_message(rng, value)}"
    if kind.startswith("string"):
        value = any_text(rng).replace("\x00", "")
    elif "uint8[" in kind or "uint8>" in kind or "octet>" in kind:
        value = array("B", any_bytes(rng, bytes(value)))
    elif isinstance(value, (np.ndarray, array)) or (isinstance(value, Sequence) and "double" in kind):
        value = _changed_floats(rng, value, fixed="[" in kind)
    elif isinstance(value, bool):
        value = not value
    elif isinstance(value, int) and (match := _INTEGER.match(kind)):
        bits = int(match[2] or 8)
        low, high = (0, 2**bits - 1) if match[1] or not match[2] else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        value = any_integer(rng, value, low, high)
    elif isinstance(value, float):
        value = any_number(rng, value)
    setattr(message, name, value)
    return name


def _changed_floats(rng: Rng, values: Any, fixed: bool) -> Any:
    """Floats with one or all of them changed; of a list, more or fewer of them too."""
    changed = np.array(values, dtype=np.float64)
    if not fixed and rng.random() < 0.4:
        return array("d", np.resize(changed, int(rng.choice([0, 1, 3, 4, 6, 9, 12, 100])))).tolist()
    if len(changed):
        where = slice(None) if rng.random() < 0.2 else int(rng.integers(len(changed)))
        changed[where] = any_number(rng, float(np.ravel(changed[where])[0]))
    return changed if fixed else array("d", changed)


def mutate_document(rng: Rng, node: Any) -> Any:
    """A parsed JSON or YAML document with one value changed, left out, or of another type."""
    if isinstance(node, dict) and node and rng.random() < 0.9:
        key = list(node)[rng.integers(len(node))]
        if rng.random() < 0.12:
            return {k: v for k, v in node.items() if k != key}
        return {**node, key: mutate_document(rng, node[key])}
    if isinstance(node, list) and node and rng.random() < 0.9:
        at = int(rng.integers(len(node)))
        return [*node[:at], mutate_document(rng, node[at]), *node[at + 1 :]]
    if isinstance(node, str) and rng.random() < 0.7:
        return any_text(rng)
    if isinstance(node, (int, float)) and not isinstance(node, bool) and rng.random() < 0.8:
        return any_integer(rng, int(node), -(2**70), 2**70) if rng.random() < 0.5 else any_number(rng, float(node))
    others: tuple[Any, ...] = (None, True, [], {}, [1, [2, [3]]], {"a": 1}, "text", 7, 1e400, [node] * 3, {"x": node})
    return others[rng.integers(len(others))]
