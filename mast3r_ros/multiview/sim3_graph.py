"""Frames of different units joined by the similarities between pairs of them, some of which are wrong.

Rotations first, then scales, then positions: each is linear once the former are known (Govindu, CVPR 2004; Cui and
Tan, ICCV 2015), and is solved by iteratively reweighted least squares, so that wrong edges lose their weight.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix, csr_matrix
from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree
from scipy.sparse.linalg import spsolve
from scipy.spatial.transform import Rotation

from mast3r_ros.geometry.similarity import Similarity

Array = NDArray[np.float64]

#: Rounds of reweighting.
ROUNDS = 14
#: Residuals at which an edge counts half: radians, logarithm of a scale, share of the depth that is seen.
TURN, SCALE, PLACE = 0.02, 0.05, 0.05


@dataclass(frozen=True, eq=False)
class SimilarityEdge:
    """What carries points of frame a to frame b.

    Attributes:
        b_T_a: the similarity.
        depth: typical depth of what both see, in b's unit.
        weight: how much it is believed.
        share: of what was seen that agrees with it.
    """

    a: int
    b: int
    b_T_a: Similarity
    depth: float
    weight: float = 1.0
    share: float = 1.0

    def between(self, place: Mapping[int, int]) -> SimilarityEdge:
        """The same between frames of other numbers."""
        return replace(self, a=place[self.a], b=place[self.b])


@dataclass(frozen=True, eq=False)
class JoinedFrames:
    """``x_world = s_n R_n x_n + t_n``.

    Attributes:
        s: (N,), with a geometric mean of 1.
        R: (N, 3, 3).
        t: (N, 3).
        turn, scale, place: (E,) residuals of the edges, in the units of :data:`TURN`, :data:`SCALE`, :data:`PLACE`.
    """

    s: Array
    R: Array
    t: Array
    turn: Array
    scale: Array
    place: Array

    def world_T(self, n: int) -> Similarity:
        """From frame n to the world."""
        return Similarity(float(self.s[n]), self.R[n], self.t[n])


def join_frames(count: int, edges: Sequence[SimilarityEdge]) -> JoinedFrames:
    """Frames 0 to ``count`` - 1, which the edges connect.

    Raises:
        ValueError: where they do not.
    """
    if count == 1:
        one = np.ones(1)
        return JoinedFrames(one, np.eye(3)[None], np.zeros((1, 3)), *np.zeros((3, 0)))
    a, b = (np.array([getattr(edge, side) for edge in edges], dtype=np.int64) for side in "ab")
    weight = np.array([edge.weight for edge in edges])
    R_ab, log_s = np.array([edge.b_T_a.R for edge in edges]), np.log([edge.b_T_a.scale for edge in edges])
    R = _along_tree(count, a, b, weight, R_ab)
    turn = np.zeros(len(edges))
    for n in range(ROUNDS):
        # R_b R_ab = R_a: what is left over, in the world's axes.
        off = Rotation.from_matrix(R[a] @ np.swapaxes(R[b] @ R_ab, 1, 2)).as_rotvec()
        turn = np.linalg.norm(off, axis=1)
        step = _solved(count, a, b, weight * _cauchy(turn / _wide(TURN, n)), off)
        R = Rotation.from_rotvec(step).as_matrix() @ R
    scales, scale = _reweighted(count, a, b, weight * _cauchy(turn / TURN), -log_s[:, None], np.ones(len(a)), SCALE)
    s = np.exp(scales[:, 0] - scales[:, 0].mean())
    t_ab, depth = np.array([edge.b_T_a.t for edge in edges]), np.array([edge.depth for edge in edges])
    believed = weight * _cauchy(turn / TURN) * _cauchy(scale / SCALE)
    difference = -s[b][:, None] * np.einsum("eij,ej->ei", R[b], t_ab)
    t, place = _reweighted(count, a, b, believed, difference, s[b] * depth, PLACE)
    return JoinedFrames(s, R, t, turn, scale, place)


def _along_tree(count: int, a: NDArray[np.int64], b: NDArray[np.int64], weight: Array, R_ab: Array) -> Array:
    """First rotations (N, 3, 3): from the most connected frame along the most believed edges."""
    graph = coo_matrix((-weight, (a, b)), shape=(count, count)).tocsr()
    tree = minimum_spanning_tree(graph)
    if tree.nnz < count - 1:
        raise ValueError(f"the edges connect {tree.nnz + 1} of {count} frames only")
    root = int(np.bincount(np.concatenate([a, b]), minlength=count).argmax())
    order, before = breadth_first_order(tree, root, directed=False)
    number = {(int(i), int(j)): n for n, (i, j) in enumerate(zip(a, b, strict=True))}
    R = np.tile(np.eye(3), (count, 1, 1))
    for node in order[1:]:
        up = int(before[node])
        if (int(node), up) in number:
            R[node] = R[up] @ R_ab[number[int(node), up]]
        else:
            R[node] = R[up] @ R_ab[number[up, int(node)]].T
    return R


def _reweighted(
    count: int, a: NDArray[np.int64], b: NDArray[np.int64], weight: Array, difference: Array, unit: Array, half: float
) -> tuple[Array, Array]:
    """x (N, D) with ``x_b - x_a = difference`` in the sense of most edges, and the residuals (E,) by their units."""
    x, off = np.zeros((count, difference.shape[1])), np.zeros(len(a))
    for n in range(ROUNDS):
        believed = weight / unit**2 * (_cauchy(off / _wide(half, n)) if n else 1.0)
        x = _solved(count, a, b, believed, difference)
        off = np.linalg.norm(x[b] - x[a] - difference, axis=1) / unit
    return x, off


def _solved(count: int, a: NDArray[np.int64], b: NDArray[np.int64], weight: Array, difference: Array) -> Array:
    """x (N, D) of least weighted squares of ``x_b - x_a - difference``, frame 0 at zero."""
    rows = np.arange(len(a))
    root = np.sqrt(np.maximum(weight, 1e-12))
    values = np.concatenate([root, -root])
    J = csr_matrix((values, (np.concatenate([rows, rows]), np.concatenate([b, a]))), shape=(len(a), count))[:, 1:]
    normal = (J.T @ J).tocsc()
    right = J.T @ (root[:, None] * difference)
    x = np.zeros((count, difference.shape[1]))
    x[1:] = np.asarray(spsolve(normal, right)).reshape(count - 1, -1)
    return x


def _wide(half: float, n: int) -> float:
    """The residual that counts half in the n-th round: wide at first, for the start may rest on a wrong edge."""
    return float(half * max(1.0, 2.0 ** (6 - n)))


def _cauchy(off: Array) -> Array:
    return 1 / (1 + off**2)
