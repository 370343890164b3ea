"""Fetches freely licensed textures and photographs from Debian's archive and packs them, for training only.

    scripts/training_pictures.py OUT.zip [--keep FOLDER]

Needs apt (`apt-get download`, nothing is installed) and dpkg-deb; fetches about 410 MB, which --keep keeps. OUT.zip
has at most 25 MB: surfaces/*.jpg (materials that repeat), pictures/*.jpg (what hangs on walls), CARD.md (where each
comes from) and the packages' copyright files. `rooms: {photographs: OUT.zip}` in a training config uses it. It is not
part of this repository, and no figure of an evaluation is measured on it.
"""

from __future__ import annotations

import argparse
import io
import re
import subprocess
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]

#: Sides of what is packed, pixels, and the most bytes of the whole.
SURFACE, PICTURE, LIMIT = 256, 384, 25_000_000
#: Crops of one photograph; an image with less contrast (grey levels) shows nothing.
CROPS, LEAST_CONTRAST = 4, 8.0
#: Maps of normals, gloss and the like, which are no pictures.
NO_PICTURE = re.compile(r"_(nm|sm|norm|gloss|glow|gm|rm|bump|reflect|local)\.")


@dataclass(frozen=True)
class Source:
    """A package and which of its files are what, by patterns of their paths; a photograph gives crops."""

    package: str
    surfaces: str = r"(?!)"
    pictures: str = r"(?!)"
    photographs: str = r"(?!)"


SOURCES = (
    Source(
        "ufoai-textures",
        surfaces=r"tex_(buildings|nature|material|streets|mattn|dirt|terrain|furniture|buildings_snow)/",
        pictures=r"tex_(pics|shop|misc|doors)/",
    ),
    Source("mate-backgrounds", photographs=r"/nature/.*\.jpg$"),
    Source("lomiri-wallpapers-16.04", photographs=r"\.jpg$"),
    Source("lomiri-wallpapers-20.04", photographs=r"\.jpg$"),
)


def fetched(source: Source, folder: Path) -> Path:
    """The package's files, unpacked."""
    unpacked = folder / source.package
    if not unpacked.is_dir():
        subprocess.run(["apt-get", "download", source.package], check=True, cwd=folder)
        (archive,) = folder.glob(f"{source.package}_*.deb")
        subprocess.run(["dpkg-deb", "-x", archive, unpacked], check=True)
    return unpacked


def files(unpacked: Path) -> Iterator[tuple[str, bytes]]:
    """Path and content of every file, those in game archives as well."""
    for path in sorted(unpacked.rglob("*")):
        if path.suffix == ".pk3":
            with zipfile.ZipFile(path) as archive:
                for name in sorted(archive.namelist()):
                    yield name, archive.read(name)
        elif path.is_file() and not path.is_symlink():
            yield str(path.relative_to(unpacked)), path.read_bytes()


def images(source: Source, unpacked: Path) -> Iterator[tuple[str, str, Image]]:
    """(surfaces or pictures, path, image) of everything that shows something."""
    for path, content in files(unpacked):
        kinds = [kind for kind in ("surfaces", "pictures", "photographs") if re.search(getattr(source, kind), path)]
        if not kinds or NO_PICTURE.search(path):
            continue
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
        if image is None or image.ndim != 3 or min(image.shape[:2]) < 64 or _see_through(image):
            continue
        image = np.ascontiguousarray(image[..., :3])
        if kinds[0] == "photographs":
            for crop in _crops(image):
                yield "pictures", path, crop
        elif image.std() >= LEAST_CONTRAST:
            side = SURFACE if kinds[0] == "surfaces" else PICTURE
            yield kinds[0], path, cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)


def _see_through(image: Image) -> bool:
    return image.shape[2] == 4 and bool((image[..., 3] < 128).mean() > 0.02)


def _crops(image: Image) -> Iterator[Image]:
    """The whole, and squares of a third to a half of its height, always the same ones."""
    rng = np.random.default_rng(image.shape[1])
    height, width = image.shape[:2]
    sides = [min(height, width), *(int(height * rng.uniform(0.3, 0.5)) for _ in range(CROPS - 1))]
    for side in sides:
        y, x = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
        crop = cv2.resize(image[y : y + side, x : x + side], (PICTURE, PICTURE), interpolation=cv2.INTER_AREA)
        if crop.std() >= LEAST_CONTRAST:
            yield crop


def licences(text: str) -> str:
    """Names of the licences in a Debian copyright file."""
    return ", ".join(sorted({name.strip() for name in re.findall(r"^License:\s*(\S.*)$", text, re.MULTILINE)}))


def pack(out: Path, folder: Path) -> None:
    """Write the archive. Raises ValueError where it would be too large."""
    content, lines = io.BytesIO(), [CARD]
    with zipfile.ZipFile(content, "w") as archive:
        for source in SOURCES:
            unpacked = fetched(source, folder)
            rights = (unpacked / "usr/share/doc" / source.package / "copyright").read_text(encoding="utf-8")
            archive.writestr(f"copyright/{source.package}.txt", rights, zipfile.ZIP_DEFLATED)
            version = next(folder.glob(f"{source.package}_*.deb")).name.split("_")[1]
            lines.append(f"\n## {source.package} {version}\n\nLicences of its files: {licences(rights)}\n")
            seen: set[bytes] = set()
            for number, (kind, path, image) in enumerate(images(source, unpacked)):
                thumbnail = cv2.resize(image, (8, 8), interpolation=cv2.INTER_AREA).tobytes()
                if thumbnail in seen:
                    continue
                seen.add(thumbnail)
                name = f"{kind}/{source.package}-{number:04d}.jpg"
                archive.writestr(name, cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes())
                lines.append(f"- `{name}`: {path}")
            print(f"{source.package}: {len(seen)} images")
        archive.writestr("CARD.md", "\n".join(lines) + "\n", zipfile.ZIP_DEFLATED)
    if content.tell() > LIMIT:
        raise ValueError(f"{content.tell()} bytes are more than {LIMIT}: lower CROPS or the sides")
    out.write_bytes(content.getvalue())
    print(f"{out}: {content.tell() / 1e6:.1f} MB")


CARD = """\
# Pictures for training

Packed by scripts/training_pictures.py of mast3r_ros from packages of Debian's main archive, shrunk and turned to JPEG.
For training networks on generated rooms only; not part of the package. Each file keeps the licence that its package's
copyright file (copyright/) states for its path; networks that were trained on them hold none of them.
"""


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--keep", type=Path)
    given = parser.parse_args()
    if given.keep is not None:
        given.keep.mkdir(parents=True, exist_ok=True)
        pack(given.out, given.keep)
        return
    with tempfile.TemporaryDirectory() as folder:
        pack(given.out, Path(folder))


if __name__ == "__main__":
    main()
