"""Replace a folder in one step: afterwards it holds all of the new content, or it is untouched.

A crash can only fall between the two renames of the swap; :func:`recover` undoes it at the next access.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from mast3r_ros.errors import MapError

logger = logging.getLogger(__name__)

#: What a file system without locks answers (NFS without a lock daemon, some FUSE).
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
#: How long a save waits for another one in the same place, seconds.
LOCK_PATIENCE_S = 60.0
#: Files that are waited for at once.
SYNCING_THREADS = 16


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """Yields a new empty sibling folder that takes the place of ``folder`` when the block succeeds.

    When the block raises anything (KeyboardInterrupt and a full disk included), ``folder`` stays as it was
    and the new one is removed.

    Raises:
        MapError: if another process keeps saving in the same place.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        tidy(folder)
        fresh = folder.with_name(f".{folder.name}.saving-{uuid.uuid4().hex[:8]}")
        try:
            fresh.mkdir()
            yield fresh
            _sync_tree(fresh)
            _swap(fresh, folder)
        except BaseException:
            _restore(folder)
            shutil.rmtree(fresh, ignore_errors=True)
            raise
        shutil.rmtree(_retired(folder), ignore_errors=True)


def recover(folder: Path) -> None:
    """Bring back ``folder`` if a crash between the two renames of a swap left it under its retired name."""
    if not folder.exists() and _retired(folder).exists():
        with locked(folder):
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
    """A hard link where the file system has them, a copy elsewhere; nothing where the disk refuses."""
    try:
        os.link(source, target)
    except OSError:
        try:
            shutil.copy2(source, target)
        except BaseException:
            Path(target).unlink(missing_ok=True)
            raise


def link_tree(source: Path, target: Path) -> None:
    """Every file below a folder, where there is one, linked or copied to the same place below another."""
    for file in sorted(source.rglob("*")) if source.is_dir() else ():
        if file.is_file() and not file.name.startswith("."):
            place = target / file.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            link_or_copy(file, place)


def _retired(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")


def _swap(fresh: Path, folder: Path) -> None:
    if folder.exists():
        os.rename(folder, _retired(folder))
    os.rename(fresh, folder)
    sync(folder.parent)


def _sync_tree(folder: Path) -> None:
    """Wait until everything new below a folder is on the disk, and nothing else: a robot records while it saves.

    Hard links are of an earlier save, which waited for them. Many threads wait at once, so that the file system can
    write thousands of small files together.
    """
    folders = [folder, *(path for path in folder.rglob("*") if path.is_dir() and not path.is_symlink())]
    with ThreadPoolExecutor(SYNCING_THREADS) as pool:
        for inside in folders:
            with os.scandir(inside) as found:
                fresh = [f.path for f in found if f.is_file(follow_symlinks=False) and f.stat().st_nlink == 1]
            list(pool.map(sync, fresh))
        list(pool.map(sync, folders))


def sync(path: str | Path) -> None:
    """Wait until a file or folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _restore(folder: Path) -> None:
    if not folder.exists() and _retired(folder).exists():
        os.rename(_retired(folder), folder)


def tidy(folder: Path) -> None:
    """Undo or clear away what a killed save left; nobody else is saving while we hold the lock."""
    _restore(folder)
    shutil.rmtree(_retired(folder), ignore_errors=True)
    for left in folder.parent.glob(f".{folder.name}.saving-*"):
        shutil.rmtree(left, ignore_errors=True)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold an advisory lock on the place of a folder; the kernel releases it even if the process is killed.

    It is on a file of its own beside the folder, opened for writing: NFS grants an exclusive lock on nothing else.
    """
    file = folder.with_name(f".{folder.name}.lock")
    deadline = time.monotonic() + LOCK_PATIENCE_S
    while (handle := _try_lock(file)) is None:
        if time.monotonic() > deadline:
            raise MapError(f"another process keeps saving in {folder.parent}: try again later")
        time.sleep(0.02)
    try:
        yield
    finally:
        file.unlink(missing_ok=True)  # before the lock is released: who waits for it sees that it is not the file's
        os.close(handle)


def _try_lock(file: Path) -> int | None:
    """A handle that holds the lock; None where somebody else has it."""
    handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            logger.warning(
                "%s: this file system has no locks; do not save there from two programs at once", file.parent
            )
        if file.exists() and os.path.samestat(os.fstat(handle), file.stat()):
            return handle
    except BlockingIOError:
        pass
    except BaseException:
        os.close(handle)
        raise
    os.close(handle)
    return None
