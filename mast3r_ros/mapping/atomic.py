"""Replace a folder in one step: afterwards it holds all of the new content, or it is untouched.

A crash can only fall between the two renames of the swap; :func:`recover` undoes it at the next look.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mast3r_ros.errors import MapError

#: How long a save waits for another one in the same place, seconds.
LOCK_PATIENCE_S = 60.0


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """Yields a new empty sibling folder that takes the place of ``folder`` when the block succeeds.

    When the block raises anything (KeyboardInterrupt and a full disk included), ``folder`` stays as it was
    and the new one is removed.

    Raises:
        MapError: if another process keeps saving in the same place.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder.parent):
        _tidy(folder)
        fresh = folder.with_name(f".{folder.name}.saving-{uuid.uuid4().hex[:8]}")
        try:
            fresh.mkdir()
            yield fresh
            os.sync()  # thousands of small files: one sync is far cheaper than an fsync for each
            _swap(fresh, folder)
        except BaseException:
            _restore(folder)
            shutil.rmtree(fresh, ignore_errors=True)
            raise
        shutil.rmtree(_retired(folder), ignore_errors=True)


def recover(folder: Path) -> None:
    """Bring back ``folder`` if a crash between the two renames of a swap left it under its retired name."""
    if not folder.exists() and _retired(folder).exists():
        with _locked(folder.parent):
            _restore(folder)


def write_synced(path: Path, data: bytes) -> None:
    """Write a file and wait until it is on the disk."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def write_replacing(path: Path, data: bytes) -> None:
    """Write a file so that readers see the old or the new content and nothing between."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        fresh.write_bytes(data)
        os.replace(fresh, path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


def link_or_copy(source: str | Path, target: str | Path) -> None:
    """A hard link where the file system has them, a copy elsewhere."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _retired(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")


def _swap(fresh: Path, folder: Path) -> None:
    if folder.exists():
        os.rename(folder, _retired(folder))
    os.rename(fresh, folder)
    parent = os.open(folder.parent, os.O_RDONLY)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)


def _restore(folder: Path) -> None:
    if not folder.exists() and _retired(folder).exists():
        os.rename(_retired(folder), folder)


def _tidy(folder: Path) -> None:
    """Undo or clear away what a killed save left; nobody else is saving while we hold the lock."""
    _restore(folder)
    shutil.rmtree(_retired(folder), ignore_errors=True)
    for left in folder.parent.glob(f".{folder.name}.saving-*"):
        shutil.rmtree(left, ignore_errors=True)


@contextmanager
def _locked(parent: Path) -> Iterator[None]:
    """Hold an advisory lock on a folder; the kernel releases it even if the process is killed."""
    handle = os.open(parent, os.O_RDONLY)
    try:
        deadline = time.monotonic() + LOCK_PATIENCE_S
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise MapError(f"another process keeps saving in {parent}: try again later") from None
                time.sleep(0.02)
        yield
    finally:
        os.close(handle)
