"""What a process may do while it reads what strangers made: bounded memory, and nothing touched or run outside."""

from __future__ import annotations

import os
import resource
import sys
import traceback
from pathlib import Path
from typing import Any

#: What one trial may take on top of what the process has, bytes.
MEMORY = 2 * 2**30
#: Audit events that run something, and those that change a file whose path is their first argument.
RUNS = ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "socket.connect", "pickle.find_class")
CHANGES = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.chmod", "shutil.rmtree")
#: A file that no trial may read or change, in a folder beside the trials'.
CANARY = "canary/secret.png"


class Watch:
    """Notes what this process does that it must not. The hook stays for the life of the process.

    Args:
        folder: within which anything may be written.
    """

    def __init__(self, folder: Path) -> None:
        self._allowed = (f"{folder.resolve()}/", "/dev/null", "/dev/tty", "/dev/pts/", "/proc/")
        self._canary = folder.resolve() / CANARY
        self._seen: list[str] = []
        self._on = False
        sys.addaudithook(self._heard)

    def begin(self) -> None:
        """Everything is imported and made: from now on it counts."""
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (_data_bytes() + MEMORY, hard))
        self._on = True

    def check(self) -> None:
        """Raises PermissionError where something was touched since the last time."""
        if self._seen:
            seen, self._seen = self._seen, []
            raise PermissionError(f"touched what is not its own: {'; '.join(seen[:5])}")

    def told(self, error: Exception) -> tuple[str, str]:
        """The kind of a finding, and its traceback."""
        frames = traceback.extract_tb(error.__traceback__)
        ours = [f for f in frames if "mast3r_ros" in f.filename and "/endure/" not in f.filename] or frames
        where = f"{ours[-1].filename.rpartition('mast3r_ros/')[2]}:{ours[-1].name}"
        return f"{type(error).__name__} in {where}", "".join(traceback.format_exception(error)[-12:])

    def _heard(self, event: str, args: tuple[Any, ...]) -> None:
        if not self._on:
            return
        if event in RUNS:
            self._seen.append(f"{event} {args!r:.200}")
        elif event == "open":
            path, flags = args[0], args[2]
            if isinstance(path, (str, bytes, os.PathLike)):
                name = os.path.realpath(os.fsdecode(path))
                writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
                if (writes and not name.startswith(self._allowed)) or name == str(self._canary):
                    self._seen.append(f"open {name}")
        elif event in CHANGES and isinstance(args[0], (str, bytes, os.PathLike)):
            name = os.fsdecode(args[0])
            if isinstance(args[-1], int) and args[-1] >= 0 and not os.path.isabs(name):
                name = f"/proc/self/fd/{args[-1]}/{name}"  # relative to an open folder, as shutil removes trees
            name = os.path.realpath(name)
            if not name.startswith(self._allowed):
                self._seen.append(f"{event} {name}")


def _data_bytes() -> int:
    """What RLIMIT_DATA counts."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[5]) * os.sysconf("SC_PAGE_SIZE")
