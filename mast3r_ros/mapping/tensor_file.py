"""Named arrays in a safetensors file with a checksum: what caches are made of."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

#: Key of the metadata.
ABOUT = "mast3r_ros"
#: Files up to this size are copied: mapping one takes longer than that, and a large map has a hundred thousand.
COPIED_BYTES = 256 * 2**10

Tensors = dict[str, NDArray[Any]]


def pack(tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> bytes:
    """The bytes of a file that :func:`read` understands: arrays by name, of any shape and numeric type."""
    arrays = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    # As one text, because safetensors writes several in any order: the same tensors are the same bytes.
    about = json.dumps({**metadata, "crc32": _checksum(arrays, metadata)}, sort_keys=True)
    return save(arrays, metadata={ABOUT: about})


def read(path: Path) -> tuple[Tensors, dict[str, str]]:
    """Tensors and metadata of a file.

    The tensors of a large file are the mapped file itself: what is not used lately costs no memory. Writing to one does
    not change the file, and replacing the file does not change them.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is damaged or cannot be read.
    """
    try:
        maps = path.stat().st_size > COPIED_BYTES
        with safe_open(path, framework="pt" if maps else "numpy") as file:  # "numpy" copies
            metadata = dict(file.metadata() or {})
            if ABOUT in metadata:  # else an earlier version wrote it
                metadata = {str(name): str(text) for name, text in json.loads(metadata[ABOUT]).items()}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
        if maps:
            tensors = {name: tensor.numpy() for name, tensor in tensors.items()}
    except FileNotFoundError:
        raise
    except (SafetensorError, OSError, AttributeError, RecursionError) as error:
        raise ValueError(str(error)) from error
    if metadata.pop("crc32", None) != _checksum(tensors, metadata):
        raise ValueError("wrong checksum")
    return tensors, metadata


#: The name of a dtype, which numpy makes anew each time.
_name = lru_cache(str)


def _checksum(tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> str:
    value = zlib.crc32(repr(sorted(metadata.items())).encode())
    for name in sorted(tensors):
        array = tensors[name]
        value = zlib.crc32(f"{name} {_name(array.dtype)} {array.shape}".encode(), value)
        value = zlib.crc32(array.data if array.size else b"", value)
    return f"{value:08x}"
