"""sensor_msgs/PointCloud2 <-> arrays, laid out as PCL and RViz expect."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.errors import CodecError
from mast3r_ros.io.codec.raw import as_bytes

#: name, offset in bytes, sensor_msgs/PointField datatype, count.
Field = tuple[str, int, int, int]

#: PointField.FLOAT32.
FLOAT32 = 7
#: sensor_msgs/PointField datatype -> numpy type code.
_DTYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", FLOAT32: "f4", 8: "f8"}


def pack_points(
    xyz: NDArray[np.floating], rgb: NDArray[np.uint8] | None = None, confidence: NDArray[np.floating] | None = None
) -> tuple[list[Field], int, NDArray[np.uint8]]:
    """Points (N, 3) in metres, colours (N, 3), confidence (N,) -> fields, point_step, data (N * point_step,).

    Every field is a little-endian float32; ``rgb`` carries 0x00RRGGBB in its bits, as PCL has it.

    Raises:
        CodecError: if the lengths differ.
    """
    columns: dict[str, NDArray[Any]] = {axis: np.asarray(xyz)[:, i].astype("<f4") for i, axis in enumerate("xyz")}
    if rgb is not None:
        r, g, b = np.asarray(rgb).astype("<u4").T
        columns["rgb"] = (r << 16 | g << 8 | b).astype("<u4").view("<f4")
    if confidence is not None:
        columns["confidence"] = np.asarray(confidence).astype("<f4")
    if len({len(column) for column in columns.values()}) > 1:
        raise CodecError(f"a cloud of {len(xyz)} points needs as many colours and confidences")
    # Column by column through uint32: a float32 copy could change NaN patterns inside packed colours.
    packed = np.stack([column.view("<u4") for column in columns.values()], axis=1)
    fields = [(name, 4 * i, FLOAT32, 1) for i, name in enumerate(columns)]
    return fields, 4 * len(columns), packed.view(np.uint8).reshape(-1)


def unpack_points(
    fields: Sequence[Field], point_step: int, data: Any, is_bigendian: bool | int = False
) -> tuple[NDArray[np.float32], NDArray[np.uint8] | None, NDArray[np.float32] | None]:
    """Inverse of :func:`pack_points`, for clouds of any layout -> xyz (N, 3), rgb (N, 3), confidence (N,).

    Raises:
        CodecError: without x, y, z, for data that are no whole number of points, or unusable fields.
    """
    by_name = {name: (offset, datatype) for name, offset, datatype, _ in fields}
    if not {"x", "y", "z"} <= by_name.keys():
        raise CodecError(f"a point cloud needs fields x, y, z; this one has {', '.join(by_name) or 'none'}")
    buffer = as_bytes(data)
    if point_step < 1 or len(buffer) % point_step:
        raise CodecError(f"cloud data of {len(buffer)} bytes are no whole number of points of {point_step} bytes")
    rows = buffer.reshape(-1, point_step)

    def column(name: str) -> NDArray[Any]:
        offset, datatype = by_name[name]
        if datatype not in _DTYPES:
            raise CodecError(f"field '{name}' has datatype {datatype}, which sensor_msgs/PointField does not define")
        dtype = np.dtype((">" if is_bigendian else "<") + _DTYPES[datatype])
        if offset + dtype.itemsize > point_step:
            raise CodecError(f"field '{name}' ends at byte {offset + dtype.itemsize} of points of {point_step} bytes")
        return np.ascontiguousarray(rows[:, offset : offset + dtype.itemsize]).view(dtype)[:, 0]

    xyz = np.stack([column(axis) for axis in "xyz"], axis=1).astype(np.float32)
    rgb = None
    colour_field = next((name for name in ("rgb", "rgba") if name in by_name), None)
    if colour_field:
        raw = column(colour_field)
        if raw.dtype.itemsize != 4:
            raise CodecError(f"field '{colour_field}' must have 4 bytes, it has {raw.dtype.itemsize}")
        bits = raw.view(np.dtype((">" if is_bigendian else "<") + "u4"))
        rgb = np.stack([bits >> 16 & 255, bits >> 8 & 255, bits & 255], axis=1).astype(np.uint8)
    confidence = column("confidence").astype(np.float32) if "confidence" in by_name else None
    return xyz, rgb, confidence
