"""Official checkpoints from their publishers: resumed where a download broke off, verified, renamed only when whole.

Nothing that arrives is trusted: sizes and hashes are compared, and the file is inspected (which executes nothing)
before anybody is told that it is there.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any

from mast3r_ros import __version__
from mast3r_ros.errors import CheckpointError
from mast3r_ros.network.checkpoint import CheckpointInfo, count_parameters, inspect_checkpoint
from mast3r_ros.network.config import PUBLISHED

NOTICE = (
    "These weights are NAVER's, licensed CC BY-NC-SA 4.0: no commercial use, name the authors, share changes alike. "
    "The data sets they were trained on add terms of their own. The licence of mast3r_ros (Apache-2.0) does not "
    "cover them."
)

#: Where each publisher keeps its files; ``--mirror`` replaces this part of the address.
BASES = {
    "huggingface": "https://huggingface.co/naver",
    "naverlabs": "https://download.europe.naverlabs.com/ComputerVision",
}
BLOCK = 1 << 20
TIMEOUT_S = 30.0

#: Called with bytes received and bytes in all.
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class RemoteFile:
    """A file to fetch: its address, its name here, and the fewest bytes it can have."""

    url: str
    name: str
    at_least: int


def cache_folder() -> Path:
    """Where checkpoints go unless told otherwise: $MAST3R_ROS_CACHE, or ~/.cache/mast3r_ros."""
    chosen = os.environ.get("MAST3R_ROS_CACHE")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "mast3r_ros"


def remote_files(name: str, source: str, mirror: str | None = None) -> list[RemoteFile]:
    """What makes up a published checkpoint, the weights last.

    Args:
        name: a published name, see ``PUBLISHED``.
        source: ``huggingface`` (config.json and model.safetensors) or ``naverlabs`` (one .pth).
        mirror: base address of a copy of the publisher's files.

    Raises:
        CheckpointError: for an unknown name or source.
    """
    if name not in PUBLISHED:
        raise CheckpointError(f"'{name}' is not published: choose one of {', '.join(PUBLISHED)}")
    if source not in BASES:
        raise CheckpointError(f"source '{source}' is not one of {', '.join(BASES)}")
    base = (mirror or BASES[source]).rstrip("/")
    weights = 4 * sum(count_parameters(PUBLISHED[name]).values())
    if source == "naverlabs":
        return [RemoteFile(f"{base}/{name.split('_')[0]}/{name}.pth", f"{name}.pth", weights)]
    folder = f"{base}/{name}/resolve/main"
    return [
        RemoteFile(f"{folder}/config.json", "config.json", 2),
        RemoteFile(f"{folder}/model.safetensors", "model.safetensors", weights),
    ]


def download_checkpoint(
    name: str,
    folder: Path,
    *,
    source: str = "huggingface",
    mirror: str | None = None,
    progress: Progress = lambda done, total: None,
) -> CheckpointInfo:
    """Fetch a published checkpoint into a folder, or find it there, and check what it is.

    Raises:
        CheckpointError: when it cannot be fetched whole, or is not the network that its name says.
    """
    files = remote_files(name, source, mirror)
    for file in files:
        if not (folder / file.name).is_file():
            fetch(file, folder, progress)
    path = folder / files[-1].name
    try:
        info = inspect_checkpoint(path)
    except CheckpointError as error:
        _discard(folder, files)
        raise CheckpointError(f"what was downloaded is no checkpoint and was deleted: {error}") from error
    if info.architecture != name:
        _discard(folder, files)
        raise CheckpointError(f"what was downloaded as {name} is another network ({info.config}); it was deleted")
    return info


def fetch(file: RemoteFile, folder: Path, progress: Progress = lambda done, total: None) -> Path:
    """Fetch one file. What arrives is kept as ``<name>.part`` until all of it is there and right.

    Raises:
        CheckpointError: saying whether running again resumes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / file.name
    part = FilePart(folder / f"{file.name}.part")
    try:
        with _opened(file.url, part) as (response, announced):
            total = part.receive(response, file, announced, progress)
    except urllib.error.HTTPError as error:
        raise CheckpointError(_refusal(file.url, error.code)) from error
    except (OSError, http.client.HTTPException) as error:  # URLError, time-outs and resets, a full disk
        reason = getattr(error, "reason", None) or error
        raise CheckpointError(
            f"{file.url} cannot be downloaded ({reason}): check the network, then run again; "
            f"{_mib(part.size)} are kept and the download resumes there"
        ) from error
    if part.size < total:
        raise CheckpointError(
            f"{file.url}: the connection ended after {_mib(part.size)} of {_mib(total)}: run again to resume"
        )
    if part.sha256 and (found := _sha256(part.path)) != part.sha256:
        part.discard()
        raise CheckpointError(
            f"{file.url}: the file that arrived has SHA-256 {found[:12]}..., its publisher says "
            f"{part.sha256[:12]}...: it was deleted, download it again"
        )
    os.replace(part.path, target)
    part.discard()
    return target


class FilePart:
    """The beginning of a file, and what tells whether its rest still belongs to it.

    Attributes:
        path: of the bytes; ``<path>.json`` beside it holds the rest.
        validator: the server's ETag or date of the version that was begun.
        sha256: of the whole file, where the publisher says it, else "".
    """

    def __init__(self, path: Path) -> None:
        self.path, self._record = path, path.with_name(path.name + ".json")
        self.validator, self.sha256 = "", ""
        try:
            known = json.loads(self._record.read_text())
            self.validator, self.sha256 = str(known["validator"]), str(known["sha256"])
        except (OSError, ValueError, KeyError, TypeError):
            self.discard()  # bytes of an unknown version are worth nothing

    @property
    def size(self) -> int:
        """Bytes that are there."""
        return self.path.stat().st_size if self.path.exists() else 0

    def request_headers(self) -> dict[str, str]:
        """Ask for the rest, or for everything if the file has changed since."""
        if self.size == 0 or not self.validator:
            return {}
        return {"Range": f"bytes={self.size}-", "If-Range": self.validator}

    def receive(self, response: Any, file: RemoteFile, announced: Announced, progress: Progress) -> int:
        """Write what the server sends; returns the size of the whole file."""
        resumed = response.status == 206
        if resumed and announced.start != self.size:
            self.discard()
            raise CheckpointError(f"{file.url}: the server does not resume where it was asked to: run again")
        if not resumed:
            self.discard()
            self.validator, self.sha256 = announced.validator, announced.sha256
            self._record.write_text(json.dumps({"validator": self.validator, "sha256": self.sha256}))
        total = announced.total
        self._require(file, file.at_least if total is None else total)
        with self.path.open("ab") as out:
            while block := response.read(BLOCK):
                out.write(block)
                progress(out.tell(), total or 0)
        if total is None:
            self._require(file, self.size)
        return self.size if total is None else total

    def _require(self, file: RemoteFile, total: int) -> None:
        """Refuse a file that is too small to be what was asked for, or too large for the disk."""
        if total < file.at_least:
            self.discard()
            raise CheckpointError(
                f"{file.url} has {total} bytes where at least {file.at_least} are needed: this is not the checkpoint "
                "(a login page of the network, perhaps: open the address in a browser)"
            )
        free = shutil.disk_usage(self.path.parent).free
        if free < total - self.size:
            raise CheckpointError(f"{self.path.parent} has {_mib(free)} free, {_mib(total - self.size)} are needed")

    def discard(self) -> None:
        """Forget it all."""
        self.path.unlink(missing_ok=True)
        self._record.unlink(missing_ok=True)


@dataclass(frozen=True)
class Announced:
    """What a server says before the bytes: where they start, how many the whole file has (if known), its version."""

    start: int
    total: int | None
    validator: str
    sha256: str


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Hugging Face tells a file's SHA-256 in the redirect to its storage, which urllib would throw away."""

    sha256 = ""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Message, newurl: str) -> Any:
        self.sha256 = _hash_of(headers) or self.sha256
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


@contextmanager
def _opened(url: str, part: FilePart) -> Iterator[tuple[Any, Announced]]:
    """An open response and what it announces."""
    headers = {"User-Agent": f"mast3r_ros/{__version__}", "Accept-Encoding": "identity", **part.request_headers()}
    redirects = _Redirects()
    opener = urllib.request.build_opener(redirects)
    with opener.open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_S) as response:
        answer = response.headers
        start, total = 0, answer.get("Content-Length", "")
        if response.status == 206:
            found = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", answer.get("Content-Range", ""))
            start, total = (int(found[1]), found[2]) if found else (-1, "")
        validator = answer.get("ETag") or answer.get("Last-Modified") or ""
        if validator.startswith("W/"):  # a weak one does not promise equal bytes
            validator = ""
        size = int(total) if total.isdigit() else None
        yield response, Announced(start, size, validator, redirects.sha256 or _hash_of(answer))


def _hash_of(headers: Message) -> str:
    """SHA-256 of a file that git LFS keeps, or ""."""
    value = (headers.get("X-Linked-ETag") or "").strip('"')
    return value if re.fullmatch(r"[0-9a-f]{64}", value) else ""


def _refusal(url: str, code: int) -> str:
    if code == 404:
        return f"{url} does not exist (any more): try the other --source, or give a --mirror"
    if code == 416:
        return f"{url}: the server has fewer bytes than were received: delete the .part file and run again"
    return f"{url}: the server refuses with HTTP {code}: try again later, or the other --source"


def _discard(folder: Path, files: list[RemoteFile]) -> None:
    for file in files:
        (folder / file.name).unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _mib(count: int) -> str:
    return f"{count / 2**20:.1f} MiB"
