"""Which topics of a recording a replay listens to.

``ros2 launch`` runs on the system's Python, which does not see what a virtual environment brings. So a launch file
asks this module as a program of its own where it cannot import it: one JSON object in, one out.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from mast3r_ros.errors import UserError


@dataclass(frozen=True)
class Request:
    """What is known before the recording is opened; empty texts are looked for.

    Attributes:
        bag: the recording.
        image, camera_info, depth: topics, the raw ones also where they are packed.
        image_transport, depth_transport: how they are packed (raw, compressed, compressedDepth).
        preset: the topics are a camera driver's usual ones: they may have been recorded in a namespace or
            compressed, and only the images must be there.
        namespace: of the robot.
    """

    bag: str
    image: str = ""
    camera_info: str = ""
    depth: str = ""
    image_transport: str = "raw"
    depth_transport: str = "raw"
    preset: bool = False
    namespace: str = ""


@dataclass(frozen=True)
class Recorded:
    """Topics of a recording; empty where there is none. The raw ones, also where they are packed."""

    image: str
    image_transport: str
    camera_info: str
    depth: str
    depth_transport: str
    depth_info: str
    tf: str
    tf_static: str


def find(request: Request) -> Recorded:
    """Look into the recording, in this process where that can be done, else on the shell's python3.

    Raises:
        UserError: if it cannot be read, or has no such topics.
    """
    try:
        return look(request)
    except ModuleNotFoundError as error:
        python = shutil.which("python3")
        if python is None or python == sys.executable:
            raise UserError(f"the Python module {error.name} is missing (docs/install.md)") from error
    done = subprocess.run(
        [python, "-m", "mast3r_ros.ros.recorded_topics", json.dumps(asdict(request))],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise UserError(done.stderr.strip().removeprefix("error: ").splitlines()[-1])
    return Recorded(**json.loads(done.stdout))


def look(request: Request) -> Recorded:
    """Look into the recording in this process. Raises BagError, and ModuleNotFoundError where the reader is missing."""
    from mast3r_ros.io.bags import find_topics, open_bag
    from mast3r_ros.io.bags.topics import base_name

    with open_bag(Path(request.bag).expanduser()) as bag:
        names = set(bag.topics)
        image, info = packed(request.image, request.image_transport), request.camera_info
        depth = packed(request.depth, request.depth_transport)
        if request.preset:
            image = _first(names, request.namespace, request.image, f"{request.image}/compressed") or image
            forms = (request.depth, f"{request.depth}/compressedDepth") if request.depth else ()
            depth = _first(names, request.namespace, *forms)
            info = _first(names, request.namespace, info)
        found = find_topics(bag.topics, str(bag.path), image or None, info or None, depth or None)
        raw, raw_depth = base_name(found.image), base_name(found.depth or "")
        return Recorded(
            image=raw,
            image_transport=found.image.removeprefix(raw).lstrip("/") or "raw",
            camera_info=found.camera_info or "",
            depth=raw_depth,
            depth_transport=(found.depth or "").removeprefix(raw_depth).lstrip("/") or "raw",
            depth_info=found.depth_info or "",
            tf=_transforms(names, "/tf"),
            tf_static=_transforms(names, "/tf_static"),
        )


def _first(names: Iterable[str], namespace: str, *wanted: str) -> str:
    """The first of these topics that was recorded, in the namespace or without it; empty if none was."""
    space = f"/{namespace.strip('/')}" if namespace.strip("/") else ""
    return next((topic for name in wanted for topic in (space + name, name) if topic in names), "")


def packed(topic: str, transport: str) -> str:
    """The topic of a transport, beside the raw one; empty if there is none."""
    return topic if transport == "raw" or not topic else f"{topic}/{transport}"


def _transforms(names: Iterable[str], topic: str) -> str:
    """The recording's own transforms: the global topic, or the only one in a namespace."""
    spaced = [name for name in names if name.endswith(topic)]
    return spaced[0] if topic not in spaced and len(spaced) == 1 else topic


if __name__ == "__main__":
    try:
        print(json.dumps(asdict(look(Request(**json.loads(sys.argv[1]))))))
    except UserError as user_error:
        sys.exit(f"error: {user_error}")
    except ModuleNotFoundError as missing:
        sys.exit(f"error: the Python module {missing.name} is missing in {sys.executable} (docs/install.md)")
