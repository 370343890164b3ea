"""A map whose poses only odometry knows: poses anew by structure from motion, the length of the way by odometry.

Odometry drifts, so keyframes of one place taken minutes apart contradict each other, and nothing that is triangulated
between them is right. Images do not drift; they do not know the scale, which odometry tells step by step.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.errors import MapError
from mast3r_ros.frames import Frame
from mast3r_ros.geometry import se3
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.matching.base import Matcher
from mast3r_ros.matching.sift import SiftMatcher
from mast3r_ros.multiview.model import Model
from mast3r_ros.multiview.photos import Photo
from mast3r_ros.multiview.reconstruct import ReconstructionError, ReconstructSettings, reconstruct
from mast3r_ros.multiview.scale import Scale, from_odometry, provenance

log = logging.getLogger(__name__)

Array = NDArray[np.float64]
Stages = Callable[[str, int, int], None]

#: Keyframes that each is matched with: those that look most like it, and those that follow it.
SETTINGS = ReconstructSettings(neighbours=12, following=4)
FEATURES, LONGEST_SIDE = 2000, 1600
#: Images and odometry agree on a motion where they differ by no more than this: a share of the way, and of how far away
#: things are; degrees, and a share of the turn.
OF_WAY, OF_DEPTH, OF_TURN, TURN_DEG = 0.1, 0.05, 0.05, 4.0
#: Keyframes between two that are held against each other at most, and how many keyframes it costs to believe that
#: odometry jumped: wheels slip now and then, and a few keyframes at a wrong place look like two jumps.
SKIPPED, JUMP = 10, 6.0
#: What ``provenance`` holds.
FLAGGED, PLACED = "disagreeing keyframes", "keyframes placed by odometry"


@dataclass(frozen=True, eq=False)
class Refinement:
    """What came out.

    Attributes:
        poses: map_T_camera (4, 4) by id, of all keyframes.
        scale: of the largest part; its interval is of true metres for each metre of the map.
        placed: ids that structure from motion could not place; odometry from their neighbours did.
        flagged: ids whose images put them where odometry says they cannot be, and how far off that is; odometry placed
            them as well.
        parts: ids of further parts that share nothing with the largest one; odometry places them.
        moved_m: how far keyframes were moved against odometry, in the median and at most.
    """

    poses: dict[str, Array]
    scale: Scale
    placed: list[str]
    flagged: dict[str, str]
    parts: list[list[str]]
    moved_m: tuple[float, float]

    @property
    def doubts(self) -> list[str]:
        """What a person should know of it, a sentence each."""
        found = []
        if self.flagged:
            named = "; ".join(f"{id} {how}" for id, how in list(self.flagged.items())[:5])
            found.append(
                f"{len(self.flagged)} keyframes stand where odometry says, because their images put them where it says "
                f"they cannot be ({named})"
            )
        if self.parts:
            sizes = ", ".join(str(len(part)) for part in self.parts)
            found.append(f"parts of {sizes} keyframes share nothing with the rest: only odometry says where they are")
        if self.placed:
            found.append(
                f"{len(self.placed)} of {len(self.poses)} keyframes show too little of what others show: only odometry "
                f"says where they are ({', '.join(self.placed[:5])}{', ...' if len(self.placed) > 5 else ''})"
            )
        return found


class KeyframeImages:
    """The images of a map as a source of photos.

    Attributes:
        folder: what errors call it.
        files: ids of all keyframes.
        unusable: stays empty.
    """

    def __init__(self, keyframe_map: KeyframeMap) -> None:
        self._map = keyframe_map
        self.folder = Path(keyframe_map.provenance.get("source") or "map")
        self.files: Sequence[str] = [keyframe.id for keyframe in keyframe_map.keyframes]
        self.unusable: dict[str, str] = {}

    def __iter__(self) -> Iterator[tuple[Photo, Frame]]:
        for id in self.files:
            frame = self._map.frame(id)
            assert frame.camera is not None
            yield Photo(id, Path(id), frame.camera, True, "", digest=id), frame


def refine_map(
    keyframe_map: KeyframeMap,
    progress: Stages = lambda stage, done, total: None,
    finder: Matcher | None = None,
) -> Refinement:
    """Give keyframes without depth poses by structure from motion; odometry tells scale, frame, and what images do not.

    Points of the keyframes go: they were triangulated with the poses of before.

    Args:
        keyframe_map: with poses from odometry, in the order of time. It stays as it is where this fails.
        finder: finds matches; SIFT by default.

    Raises:
        MapError: where the keyframes have depth, or nothing can be reconstructed, or odometry never moved.
    """
    if keyframe_map.measured:
        raise MapError("poses are refined in maps without depth images only")
    try:
        result = reconstruct(
            KeyframeImages(keyframe_map),
            finder or SiftMatcher(max_features=FEATURES, longest_side=LONGEST_SIDE),
            SETTINGS,
            progress,
        )
    except ReconstructionError as error:
        raise MapError(f"the poses cannot be refined by the images: {error}") from error
    ids = [keyframe.id for keyframe in keyframe_map.keyframes]
    odometry = np.array([keyframe.map_T_camera for keyframe in keyframe_map.keyframes])
    given = dict(enumerate(odometry))
    scale = from_odometry(result.models[0], given, "odometry")
    if scale is None:
        raise MapError("the poses cannot be refined: they hardly move, so they tell no scale")
    poses, flagged = _agreeing(scale.applied(result.models[0]), odometry)
    parts = []
    for model in result.models[1:]:
        own = from_odometry(model, given, "odometry")
        if own is not None and len(poses):
            more, wrong = _agreeing(own.applied(model), odometry)
            flagged |= wrong
            poses |= _joined(more, poses, odometry)
            parts.append([ids[n] for n in more])
    moved = [float(np.linalg.norm(pose[:3, 3] - odometry[n][:3, 3])) for n, pose in poses.items()]
    known, placed = dict(poses), [n for n in range(len(ids)) if n not in poses and n not in flagged]
    for n in {*placed, *flagged}:
        near = min(known, key=lambda other: abs(other - n))
        poses[n] = known[near] @ se3.inverse(odometry[near]) @ odometry[n]
    found = Refinement(
        {ids[n]: poses[n] for n in sorted(poses)},
        scale,
        [ids[n] for n in placed],
        {ids[n]: how for n, how in sorted(flagged.items())},
        parts,
        (float(np.median(moved)), max(moved)),
    )
    keyframe_map.set_poses(found.poses)
    about = {"poses": "structure from motion", FLAGGED: " ".join(found.flagged), PLACED: " ".join(found.placed)}
    keyframe_map.provenance.update(provenance(scale) | {name: text for name, text in about.items() if text})
    return found


def refine_if_possible(keyframe_map: KeyframeMap) -> None:
    """The same; where it cannot be done the poses stay as they are, and the log says why."""
    try:
        for doubt in refine_map(keyframe_map).doubts:
            log.warning("%s", doubt)
    except MapError as error:
        log.warning("poses are odometry's as they are, and drift: %s", error)


def is_odometry(frame_id: str) -> bool:
    """Whether poses in a frame drift (REP 105: ``odom``, of whichever robot)."""
    return frame_id.rsplit("/", 1)[-1] == "odom"


def _agreeing(model: Model, odometry: Array) -> tuple[dict[int, Array], dict[int, str]]:
    """Poses of a metric model whose motions odometry confirms, and what is wrong with the others.

    The most keyframes are kept of which each moved from the one before as odometry says; a jump of odometry is believed
    where that keeps :data:`JUMP` more of them.
    """
    numbers = model.images
    depth = float(np.median(np.concatenate([model.seen(n)[1] for n in numbers])))
    score, before = np.ones(len(numbers)), np.full(len(numbers), -1)
    for j in range(1, len(numbers)):
        jump = int(np.argmax(score[:j]))
        best, score[j] = jump, score[jump] + 1 - JUMP
        for i in range(max(0, j - SKIPPED), j):
            if score[i] + 1 > score[j] and _difference(model, odometry, numbers[i], numbers[j], depth)[2] <= 1:
                best, score[j] = i, score[i] + 1
        before[j] = best if score[j] > 1 else -1
        score[j] = max(score[j], 1.0)
    chain, at = list[int](), int(np.argmax(score))
    while at >= 0:
        chain.append(numbers[at])
        at = int(before[at])
    kept = {n: model.world_T_camera[n] for n in reversed(chain)}
    wrong = {}
    for n in sorted(set(numbers) - set(kept)):
        near = min(kept, key=lambda other: abs(other - n))
        metres, degrees, _ = _difference(model, odometry, near, n, depth)
        wrong[n] = f"by {metres:.2g} m and {degrees:.2g} deg"
    return kept, wrong


def _difference(model: Model, odometry: Array, i: int, j: int, depth: float) -> tuple[float, float, float]:
    """Metres and degrees between how images and odometry moved from one keyframe to another, and as a share of what
    is allowed."""
    seen = se3.inverse(model.world_T_camera[i]) @ model.world_T_camera[j]
    driven = se3.inverse(odometry[i]) @ odometry[j]
    metres, degrees = se3.pose_error(seen, driven)
    steps = odometry[i : j + 1] if i < j else odometry[j : i + 1]
    way = float(np.linalg.norm(np.diff(steps[:, :3, 3], axis=0), axis=1).sum())
    turned = sum(float(np.degrees(se3.angle(se3.inverse(a) @ b))) for a, b in pairwise(steps))
    allowed = OF_WAY * way + OF_DEPTH * depth, TURN_DEG + OF_TURN * turned
    return metres, degrees, max(metres / allowed[0], degrees / allowed[1])


def _joined(poses: Mapping[int, Array], known: Mapping[int, Array], odometry: Array) -> dict[int, Array]:
    """Poses of another part in the frame of the known ones, by odometry between the two that are closest in time."""
    here, there = min(((n, m) for n in poses for m in known), key=lambda pair: abs(pair[0] - pair[1]))
    T = known[there] @ se3.inverse(odometry[there]) @ odometry[here] @ se3.inverse(poses[here])
    return {n: T @ pose for n, pose in poses.items()}
