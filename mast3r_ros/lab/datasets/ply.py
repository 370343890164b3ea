"""Points of PLY files (Turk, 1994), text and binary; faces, colours and everything else in them are passed over."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.errors import DatasetError
from mast3r_ros.io.datasets.base import read_bytes

TYPES = {
    **dict.fromkeys(("char", "int8"), "i1"),
    **dict.fromkeys(("uchar", "uint8"), "u1"),
    **dict.fromkeys(("short", "int16"), "i2"),
    **dict.fromkeys(("ushort", "uint16"), "u2"),
    **dict.fromkeys(("int", "int32"), "i4"),
    **dict.fromkeys(("uint", "uint32"), "u4"),
    **dict.fromkeys(("float", "float32"), "f4"),
    **dict.fromkeys(("double", "float64"), "f8"),
}
ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
END = b"end_header"


@dataclass
class _Element:
    """A table of the file; ``fields`` is None where a row's length is not known beforehand (lists)."""

    name: str
    count: int
    fields: list[tuple[str, str]] | None = field(default_factory=list)


def read_ply(path: Path) -> NDArray[np.float64]:
    """The vertices (N, 3) of a PLY file, without those that are not finite.

    Raises:
        DatasetError: if the file cannot be read, is something else, or is shorter than its header says.
    """
    data = read_bytes(path)
    end = data.find(END)
    if not data.startswith(b"ply") or end < 0:
        raise DatasetError(f"{path} is no PLY file: expected 'ply' at its beginning and 'end_header' after the header")
    body = data.find(b"\n", end) + 1
    order, elements = _header(path, data[:end].decode("ascii", errors="replace").splitlines())
    vertex = next((element for element in elements if element.name == "vertex"), None)
    names = [] if vertex is None or vertex.fields is None else [name for name, _ in vertex.fields]
    if vertex is None or not {"x", "y", "z"} <= set(names):
        raise DatasetError(f"{path}: expected 'element vertex' with properties x, y and z, all of them numbers")
    before = elements[: elements.index(vertex)]
    read = _text_rows if order == "" else _binary_rows
    points = read(path, data[body:], before, vertex, order)
    return points[np.isfinite(points).all(axis=1)]


def _header(path: Path, lines: list[str]) -> tuple[str, list[_Element]]:
    order, elements = None, []
    for number, line in enumerate(lines[1:], start=2):
        words = line.split()
        try:
            if not words or words[0] in ("comment", "obj_info"):
                continue
            if words[0] == "format":
                order = ORDERS[words[1]]
            elif words[0] == "element":
                elements.append(_Element(words[1], int(words[2])))
            elif words[0] == "property" and words[1] == "list":
                elements[-1].fields = None
            elif words[0] == "property":
                fields = elements[-1].fields
                if fields is not None:
                    fields.append((words[2], TYPES[words[1]]))
            else:
                raise KeyError(words[0])
        except (KeyError, IndexError, ValueError) as error:
            raise DatasetError(f"{path}, line {number}: '{line.strip()}' does not belong in a PLY header") from error
    if order is None:
        raise DatasetError(f"{path}: its header names no format: expected one of {', '.join(ORDERS)}")
    return order, elements


def _binary_rows(path: Path, data: bytes, before: list[_Element], vertex: _Element, order: str) -> NDArray[np.float64]:
    start = 0
    for element in before:
        if element.fields is None:
            raise DatasetError(f"{path}: '{element.name}' holds lists and comes before the vertices: write them first")
        start += element.count * _dtype(element, order).itemsize
    dtype = _dtype(vertex, order)
    if len(data) < start + vertex.count * dtype.itemsize:
        raise DatasetError(f"{path} is truncated: its header promises {vertex.count} vertices")
    rows = np.frombuffer(data, dtype, vertex.count, start)
    return np.stack([rows[axis] for axis in "xyz"], axis=-1).astype(np.float64)


def _text_rows(path: Path, data: bytes, before: list[_Element], vertex: _Element, order: str) -> NDArray[np.float64]:
    assert vertex.fields is not None
    lines = data.split(b"\n")
    first = sum(element.count for element in before)
    rows = lines[first : first + vertex.count]
    columns = [[name for name, _ in vertex.fields].index(axis) for axis in "xyz"]
    try:
        points = np.array([line.split() for line in rows], dtype=np.float64).reshape(-1, len(vertex.fields))
    except ValueError as error:
        raise DatasetError(f"{path}: a vertex is not {len(vertex.fields)} numbers ({error})") from error
    if len(points) < vertex.count:
        raise DatasetError(f"{path} is truncated: its header promises {vertex.count} vertices")
    return points[:, columns]


def _dtype(element: _Element, order: str) -> np.dtype[np.void]:
    return np.dtype([(name, order + code) for name, code in element.fields or []])
