"""Files of named arrays: mapped, checked, and independent of what happens to the file afterwards."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from mast3r_ros.mapping import tensor_file

ARRAYS = {
    "tokens": np.linspace(-1, 1, 360_000, dtype=np.float16).reshape(600, 600),
    "codes": np.arange(12, dtype=np.uint16).reshape(3, 4),
    "flags": np.array([True, False]),
    "nothing": np.zeros((0, 4), np.float32),
}


SMALL = {**ARRAYS, "tokens": ARRAYS["tokens"][:9]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "arrays.safetensors"
    file.write_bytes(tensor_file.pack(ARRAYS, {"content": "k1"}))
    return file


@pytest.mark.parametrize("written", [ARRAYS, SMALL])
def test_arrays_and_metadata_come_back(path: Path, written: dict[str, np.ndarray]) -> None:
    path.write_bytes(tensor_file.pack(written, {"content": "k1"}))
    arrays, metadata = tensor_file.read(path)
    assert metadata == {"content": "k1"} and arrays.keys() == written.keys()
    for name, array in written.items():
        assert arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(arrays[name], array)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_arrays_are_the_mapped_file_and_not_a_copy(path: Path) -> None:
    def mapped() -> bool:
        return str(path) in Path("/proc/self/maps").read_text()

    arrays, _ = tensor_file.read(path)
    assert mapped()
    del arrays
    assert not mapped()


def test_replacing_or_deleting_the_file_changes_nothing_and_writing_stays_here(path: Path) -> None:
    arrays, _ = tensor_file.read(path)
    arrays["codes"][0, 0] = 99
    np.testing.assert_array_equal(tensor_file.read(path)[0]["codes"], ARRAYS["codes"])
    other = path.with_name("other")
    other.write_bytes(tensor_file.pack({"tokens": np.zeros((600, 600), np.float16)}, {}))
    os.replace(other, path)
    np.testing.assert_array_equal(arrays["tokens"], ARRAYS["tokens"])
    path.unlink()
    np.testing.assert_array_equal(arrays["tokens"], ARRAYS["tokens"])


@pytest.mark.parametrize("written", [ARRAYS, SMALL])
@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data[:100], lambda data: data[:-2] + b"xx"])
def test_damage_is_noticed(path: Path, damage, written: dict[str, np.ndarray]) -> None:
    path.write_bytes(damage(tensor_file.pack(written, {"content": "k1"})))
    with pytest.raises(ValueError):
        tensor_file.read(path)
