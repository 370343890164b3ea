"""Trajectories as text: TUM's eight columns, and the tables of EuRoC and others whose header names their columns."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.errors import DatasetError
from mast3r_ros.io.datasets.base import numbers, pose_of, read_table, read_text
from mast3r_ros.io.datasets.stamps import stamps_ns

TUM = "timestamp tx ty tz qx qy qz qw"
#: Parts of column names: "tx", "p_RS_R_x [m]", "field.pose.pose.position.x"; "qw", "q_RS_w []", "orientation.w".
_POSITION = {"", "t", "p", "pos", "position", "trans", "translation"}
_ROTATION = {"q", "quat", "quaternion", "orientation", "rot", "rotation"}


def read_trajectory(path: Path) -> list[tuple[int, NDArray[np.float64]]]:
    """A trajectory as (stamp_ns, pose (4, 4)) sorted by stamp; of two poses of one time the later line counts.

    Lines are ``timestamp tx ty tz qx qy qz qw``, unless a header names other columns.

    Raises:
        DatasetError: for a file that is missing, empty or malformed, naming the line.
    """
    columns = _columns(path)
    stamps, poses = [], []
    for number, (line, words) in enumerate(read_table(path)):
        if number == 0 and not any(map(is_number, words)):
            continue  # a header that is no comment
        if columns is not None and len(words) > max(columns):
            words = [words[column] for column in columns]
        _, *values = numbers(path, line, words, TUM)
        stamps.append((line, words[0]))
        poses.append(pose_of(path, line, values[:3], values[3:], TUM))
    if not poses:
        raise DatasetError(f"{path} has no poses: expected lines '{TUM}'")
    return sorted(dict(zip(stamps_ns(path, stamps), poses, strict=True)).items(), key=lambda row: row[0])


def is_number(word: str) -> bool:
    """Whether a word of a table is a number."""
    try:
        float(word)
    except ValueError:
        return False
    return True


def _columns(path: Path) -> list[int] | None:
    """Places of TUM's eight values, by the names in a header; None where none names them."""
    for line in read_text(path).splitlines():
        text = line.strip().lstrip("#% ")
        names = re.split(r"\s*[,;]\s*", text) if re.search("[,;]", text) else text.split()
        if names and is_number(names[0]):
            return None
        places = {role: place for place, role in reversed([*enumerate(map(_role, names))])}
        if all(role in places for role in TUM.split()[1:]):
            return [places.get(role, 0) for role in TUM.split()]
    return None


def _role(name: str) -> str:
    """What a column holds, as TUM calls it, by its name; "" for others."""
    name = re.sub(r"\[.*?\]|\(.*?\)", "", name).strip().lower()
    if name.startswith(("time", "stamp")):
        return "timestamp"
    parts = set(re.split(r"[_.\s]+", name[:-1].rstrip("_. ")))
    if name[-1:] in set("xyzw") and parts & _ROTATION:
        return "q" + name[-1]
    return "t" + name[-1] if name[-1:] in set("xyz") and parts & _POSITION else ""
