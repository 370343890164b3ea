"""Signed maps: a robot that is asked to loads only what its fleet has signed (ed25519, by ``cryptography``).

A signature covers what a map says and shows: map.yaml, keyframes.jsonl, and by the checksums in that every image, depth
image and point. Caches (features, retrieval, the table) are not covered: of a map from elsewhere, ``verify`` removes
them when asked, and they are made anew.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

from mast3r_ros.errors import MapError
from mast3r_ros.mapping import table
from mast3r_ros.mapping.atomic import write_replacing
from mast3r_ros.mapping.storage import BadLine, read_header, read_lines, read_map

NAME = "map.sig"
CACHES = ("features", "retrieval", table.NAME)


def make_keys(private: Path) -> Path:
    """Write a new private key, readable by its owner only, and beside it the public one, which is returned.

    Raises:
        MapError: if one is there, or ``cryptography`` is not installed.
    """
    keys, serialization = _library()
    public = private.with_suffix(".pub")
    if private.exists() or public.exists():
        raise MapError(f"{private}: a key is there already: choose another name")
    key = keys.Ed25519PrivateKey.generate()
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    private.touch(mode=0o600)
    private.write_bytes(text)
    public.write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return public


def sign(folder: Path, private: Path) -> None:
    """Sign a map as it is now; it must be whole.

    Raises:
        MapError: for a damaged map, an unusable key, or without ``cryptography``.
    """
    _, serialization = _library()
    try:
        key = serialization.load_pem_private_key(private.read_bytes(), None)
        signature = key.sign(_digest(folder))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise MapError(f"{private}: is no ed25519 private key that can be used ({error})") from error
    write_replacing(folder / NAME, signature)


def verify(folder: Path, public: Path, *, drop_caches: bool = False) -> None:
    """Check that a map is what the owner of a key has signed, every pixel of it.

    Args:
        drop_caches: remove what the signature does not cover.

    Raises:
        MapError: if it is not, if it is not signed, for an unusable key, or without ``cryptography``.
    """
    _, serialization = _library()
    from cryptography.exceptions import InvalidSignature

    try:
        key = serialization.load_pem_public_key(public.read_bytes())
        check = key.verify
    except (OSError, ValueError, AttributeError) as error:
        raise MapError(f"{public}: is no ed25519 public key that can be used ({error})") from error
    if not (folder / NAME).is_file():
        raise MapError(f"{folder}: is not signed: sign it with `mast3r_ros map sign`, or take it from who did")
    try:
        check((folder / NAME).read_bytes(), _digest(folder))
    except (InvalidSignature, TypeError) as error:
        raise MapError(f"{folder}: is not what the owner of {public} has signed: do not use it") from error
    for name in CACHES if drop_caches else ():
        if (folder / name).is_dir():
            shutil.rmtree(folder / name)
        else:
            (folder / name).unlink(missing_ok=True)


def _digest(folder: Path) -> bytes:
    """What is signed: the files that describe the map, after every file that they name was compared with its checksum.

    The map is read from its lines: the table, which says the same, is not covered.
    """
    header = read_header(folder)
    lines = read_lines(folder / "keyframes.jsonl", header.cameras, until=header.keyframes_bytes)
    entries = [entry for _, entry in lines if not isinstance(entry, BadLine)]
    read_map(folder)  # raises where lines are bad, or not what was saved
    for entry in entries:
        for _, blob in entry.blobs():
            blob.read()
    digest = hashlib.sha256(b"mast3r_ros map 1\n")
    for name, counts in (("map.yaml", None), ("keyframes.jsonl", header.keyframes_bytes)):
        data = (folder / name).read_bytes()[:counts]
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.digest()


def _library() -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ModuleNotFoundError:
        raise MapError("signatures need cryptography: pip install 'mast3r_ros[sign]'") from None
    return ed25519, serialization
