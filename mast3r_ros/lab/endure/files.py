"""Files of strangers: refused with a sentence, or read; nothing run, nothing outside touched, memory and time bounded.

Each trial copies a good file or folder, changes one file of it by its bytes or by its structure, and reads all of it.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from mast3r_ros.lab.endure.artefacts import Artefact, artefacts, bomb, malicious_pickle, picture
from mast3r_ros.lab.endure.campaign import Rng, Trial, Wrong
from mast3r_ros.lab.endure.mutations import any_bytes, any_number, any_text, mutate_document
from mast3r_ros.lab.endure.watched import CANARY

#: Share of the trials that change bytes; the others know what the file is.
BYTEWISE = 0.4
PICTURES = (".png", ".jpg", ".tiff")


def make(folder: Path) -> Trial:
    """The campaign's trials."""
    good = folder / "good"
    good.mkdir()
    kinds = artefacts(good)
    secret = folder / CANARY
    secret.parent.mkdir()
    secret.write_bytes(picture())
    return partial(_trial, folder, kinds, bomb(), secret)


def _trial(folder: Path, kinds: list[Artefact], huge: bytes, secret: Path, rng: Rng) -> str:
    kind = kinds[rng.integers(len(kinds))]
    copy, marker = folder / "trial", folder / "was_run"
    _clear(copy)
    copied = copy / kind.good.name
    if kind.good.is_dir():
        shutil.copytree(kind.good, copied)
    else:
        copy.mkdir()
        shutil.copy(kind.good, copied)
    files = sorted(path for path in copy.rglob("*") if path.is_file())
    what = _spoil(rng, files[rng.integers(len(files))], copied, huge, marker)
    try:
        outcome = kind.read(copied)
    finally:
        if marker.exists():
            marker.unlink()
            raise Wrong(f"{kind.name} ran what it read", what)
        if sorted(path.name for path in folder.iterdir()) != ["canary", "good", "trial"]:
            for left in folder.iterdir():
                if left.name not in ("canary", "good", "trial"):
                    _clear(left)
            raise Wrong(f"{kind.name} left files outside", what)
    if secret.stat().st_size != len(picture()):
        raise Wrong(f"{kind.name} changed a file outside", what)
    return f"{kind.name}: {outcome}"


def _clear(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _spoil(rng: Rng, file: Path, whole: Path, huge: bytes, marker: Path) -> str:
    """Change one file; says how."""
    data, name = file.read_bytes(), file.relative_to(whole.parent)
    if rng.random() < BYTEWISE:
        file.write_bytes(any_bytes(rng, data))
        return f"{name}: bytes"
    if rng.random() < 0.1:
        return f"{name}: {_replaced(rng, file)}"
    if file.parent.name == "checkpoint" and rng.random() < 0.1:
        (file.parent / "old.pth").write_bytes(malicious_pickle(marker))
    elif file.suffix in PICTURES:
        file.write_bytes(huge)
    elif (change := STRUCTURES.get(file.suffix)) is not None:
        file.write_bytes(change(rng, data))
    else:
        file.write_bytes(any_bytes(rng, data))
    if (whole / "map.yaml").exists() and file.name != "map.yaml":
        _seal(whole)
    return f"{name}: structure"


def _replaced(rng: Rng, file: Path) -> str:
    """Something else in the place of a file."""
    choice = int(rng.integers(4))
    if choice == 0:
        file.unlink()
        return "gone"
    if choice == 1:
        file.unlink()
        file.mkdir()
        return "a folder"
    if choice == 2:
        file.write_bytes(b"")
        return "empty"
    other = sorted(path for path in file.parent.iterdir() if path != file)
    if other and other[0].is_file():
        file.write_bytes(other[0].read_bytes())
    return "another file"


def _seal(folder: Path) -> None:
    """Checksums and sizes as whoever made a hostile map would write them: they must not be all that protects."""
    lines = []
    for line in (folder / "keyframes.jsonl").read_bytes().splitlines():
        try:
            record = json.loads(line)
            for kind, suffix in (("image", "images"), ("depth", "depth")):
                path = folder / suffix / f"{record['id']}.{record[kind]['format']}"
                data = path.read_bytes() if path.resolve().is_relative_to(folder.resolve()) else b""
                record[kind] |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            line = json.dumps(record).encode()
        except (ValueError, KeyError, TypeError, OSError, AttributeError):
            pass
        lines.append(line + b"\n")
    data = b"".join(lines)
    (folder / "keyframes.jsonl").write_bytes(data)
    header = yaml.safe_load((folder / "map.yaml").read_text())
    header.pop("keyframes_bytes", None)
    header["keyframes_sha256"] = hashlib.sha256(data).hexdigest()
    (folder / "map.yaml").write_text(yaml.safe_dump(header, sort_keys=False))


def _json_lines(rng: Rng, data: bytes) -> bytes:
    lines = data.splitlines()
    at = int(rng.integers(len(lines)))
    lines[at] = json.dumps(mutate_document(rng, json.loads(lines[at]))).encode()
    return b"\n".join(lines) + b"\n"


def _json(rng: Rng, data: bytes) -> bytes:
    return json.dumps(mutate_document(rng, json.loads(data))).encode()


def _yaml(rng: Rng, data: bytes) -> bytes:
    if rng.random() < 0.15:
        return data + yaml_bomb(rng)
    try:
        document = yaml.safe_load(data)
    except yaml.YAMLError:  # OpenCV's own tags
        return _words(rng, data)
    return yaml.safe_dump(mutate_document(rng, document), sort_keys=False, allow_unicode=True).encode(
        "utf-8", "replace"
    )


def yaml_bomb(rng: Rng) -> bytes:
    """References to references, which a careless reader writes out; a deep nest; a tag that makes an object."""
    bombs = (
        "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9 if n else ['x'] * 9)}]\n" for n in range(9)),
        "deep: " + "[" * 200_000 + "\n",
        "deep:\n  " + "- " * 100_000 + "\n",
        "run: !!python/object/apply:os.system ['touch was_run']\n",
    )
    return bombs[rng.integers(len(bombs))].encode()


def _words(rng: Rng, data: bytes) -> bytes:
    """A text table with one word changed."""
    words = re.split(r"(\s+)", data.decode("utf-8", "replace"))
    at = 2 * int(rng.integers((len(words) + 1) // 2))
    words[at] = any_text(rng) if rng.random() < 0.4 else repr(any_number(rng, 3.0))
    if rng.random() < 0.2:
        words[at] = ("../../canary/secret.png", "../../../canary/secret.png", "/etc/hostname")[rng.integers(3)]
    return "".join(words).encode("utf-8", "replace")


def _safetensors(rng: Rng, data: bytes) -> bytes:
    """The header of a safetensors file, with its length right or wrong."""
    length = struct.unpack_from("<Q", data)[0]
    document: Any = json.loads(data[8 : 8 + length])
    header = json.dumps(mutate_document(rng, document)).encode()
    told = len(header) if rng.random() < 0.8 else int(rng.choice([0, 2**31, 2**62, length * 1000]))
    return struct.pack("<Q", told) + header + data[8 + length :]


def _numbers(rng: Rng, data: bytes) -> bytes:
    """A binary file with a count or a name replaced."""
    at = int(rng.integers(max(1, len(data) - 8)))
    if rng.random() < 0.3 and (names := list(re.finditer(rb"[\w.]+\.png", data))):
        found = names[rng.integers(len(names))]
        return data[: found.start()] + b"../../../canary/secret.png" + data[found.end() :]
    word = int(rng.choice([0, 1, 2**31, 2**40, 2**63 - 1])).to_bytes(8, "little")
    at = 0 if rng.random() < 0.4 else at
    return data[:at] + word + data[at + 8 :]


STRUCTURES: dict[str, Callable[[Rng, bytes], bytes]] = {
    ".jsonl": _json_lines,
    ".json": _json,
    ".yaml": _yaml,
    ".txt": _words,
    ".safetensors": _safetensors,
    ".bin": _numbers,
    ".mcap": _numbers,
}
