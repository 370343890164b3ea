"""Pairs that look right and are not: rotations around three images must come back to where they began.

The simplest form of Zach, Klopschitz and Pollefeys, "Disambiguating Visual Relations Using Loop Constraints", CVPR
2010.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.geometry import se3
from mast3r_ros.multiview.pair_graph import Pair

#: A triangle closes where its rotations come back to within this, degrees.
CLOSED_DEG = 5.0
#: It is broken beyond this.
BROKEN_DEG = 15.0


def confirmed(rotations: Mapping[Pair, NDArray[np.float64]]) -> set[Pair]:
    """Pairs that close a triangle."""
    return _confirmed(_triangles(rotations), rotations)


def contradicted(rotations: Mapping[Pair, NDArray[np.float64]]) -> set[Pair]:
    """Pairs that close no triangle, while two pairs that do close others break one with it.

    Args:
        rotations: (3, 3) from camera i to camera j by (i, j), each pair of images once.
    """
    errors = _triangles(rotations)
    sure = _confirmed(errors, rotations)
    broken: set[tuple[int, int]] = set()
    for triangle, off in errors.items():
        open_edges = [edge for edge in _edges(triangle, rotations) if edge not in sure]
        if off > BROKEN_DEG and len(open_edges) == 1:
            broken.add(open_edges[0])
    return broken


def _triangles(rotations: Mapping[Pair, NDArray[np.float64]]) -> dict[tuple[int, int, int], float]:
    """Degrees by which each does not come back."""
    neighbours: dict[int, set[int]] = {}
    for i, j in rotations:
        neighbours.setdefault(i, set()).add(j)
        neighbours.setdefault(j, set()).add(i)
    errors: dict[tuple[int, int, int], float] = {}
    for i, j in rotations:
        for k in neighbours[i] & neighbours[j]:
            triangle = tuple(sorted((i, j, k)))
            if triangle not in errors:
                errors[triangle] = _error(rotations, *triangle)  # type: ignore[index]
    return errors


def _confirmed(
    errors: Mapping[tuple[int, int, int], float], rotations: Mapping[Pair, NDArray[np.float64]]
) -> set[Pair]:
    return {edge for triangle, off in errors.items() if off < CLOSED_DEG for edge in _edges(triangle, rotations)}


def _edges(triangle: tuple[int, int, int], rotations: Mapping[Pair, NDArray[np.float64]]) -> list[Pair]:
    return [(a, b) if (a, b) in rotations else (b, a) for a, b in combinations(triangle, 2)]


def _error(rotations: Mapping[Pair, NDArray[np.float64]], a: int, b: int, c: int) -> float:
    """Degrees by which a -> b -> c -> a does not come back."""

    def turn(i: int, j: int) -> NDArray[np.float64]:
        return rotations[i, j] if (i, j) in rotations else rotations[j, i].T

    return float(np.degrees(se3.angle(se3.make(turn(c, a) @ turn(b, c) @ turn(a, b), np.zeros(3)))))
