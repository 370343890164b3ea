"""Compressed parts of recordings, of which no more is unpacked than a recording has.

A file of a megabyte can stand for a terabyte of zeros. rosbags asks its tables of decompressors for every chunk; ours
are put in there.
"""

from __future__ import annotations

import shutil
from bz2 import BZ2Decompressor
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import zstandard
from lz4.frame import LZ4FrameDecompressor
from rosbags.rosbag1.reader import decompressors
from rosbags.rosbag2.storage_mcap import DECOMPRESSORS

from mast3r_ros.errors import BagError

#: Of a chunk or a message, bytes unpacked; recorders make chunks of some megabytes.
MOST = 2**29
#: Of the disk, where a whole file is unpacked: this or a tenth stays free.
LEFT = 2**30
_STEP = 2**24


class TooLarge(ValueError):
    """More comes out than a recording has."""


def unpack_zstd(data: bytes, size: int = 0) -> bytes:
    """Zstandard; ``size`` is what should come out, 0 where nobody knows. Raises ValueError or ZstdError."""
    unpacked = _joined(zstandard.ZstdDecompressor().read_to_iter(data))
    told = zstandard.get_frame_parameters(data).content_size
    expected = size if told in (0, zstandard.CONTENTSIZE_UNKNOWN) else told
    if expected and len(unpacked) != expected:
        raise ValueError(f"{len(unpacked)} bytes came out of {expected}")
    return unpacked


def unpack_file(packed: Path, target: Path) -> None:
    """A file that was compressed as a whole; of a damaged one what is there.

    Raises:
        BagError: where the disk has no room for it.
    """
    free = shutil.disk_usage(target.parent).free
    room = free - min(LEFT, free // 10)
    try:
        with packed.open("rb") as source, target.open("wb") as plain, suppress(zstandard.ZstdError):
            for part in zstandard.ZstdDecompressor().read_to_iter(source):
                room -= len(part)
                if room < 0:
                    raise OSError("no room is left")
                plain.write(part)
    except OSError as error:
        raise BagError(
            f"{packed} cannot be unpacked to {target.parent} ({error.strerror or error}): unpack it where there is "
            f"room, and open what comes out: unzstd {packed}"
        ) from error


def _unpack_lz4(data: bytes, size: int = 0) -> bytes:
    return _joined(_steps(LZ4FrameDecompressor(), data))


def _unpack_bz2(data: bytes) -> bytes:
    return _joined(_steps(BZ2Decompressor(), data))


def _steps(decompressor: Any, data: bytes) -> Iterator[bytes]:
    yield decompressor.decompress(data, _STEP)
    while not decompressor.eof:
        if decompressor.needs_input:
            raise EOFError("it is cut short")
        yield decompressor.decompress(b"", _STEP)


def _joined(parts: Iterable[bytes]) -> bytes:
    kept, size = list[bytes](), 0
    for part in parts:
        kept.append(part)
        size += len(part)
        if size > MOST:
            raise TooLarge(f"more than {MOST >> 20} MiB come out of it")
    return b"".join(kept)


DECOMPRESSORS.update({"zstd": unpack_zstd, "lz4": _unpack_lz4})
decompressors.update({"bz2": _unpack_bz2, "lz4": _unpack_lz4})
