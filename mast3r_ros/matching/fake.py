"""A tiny deterministic matcher for trying nodes without a model: it recognises a keyframe shown again.

It compares thumbnails. A query that looks like a keyframe (any resolution, mild noise) gets identity
matches on a grid, so its pose is that keyframe's; anything else gets no matches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mast3r_ros.frames import Frame, valid_depth
from mast3r_ros.matching.base import Features, Matches

COLUMNS, ROWS = 32, 24
#: Thumbnails that correlate more than this show the same view.
SAME_VIEW = 0.98


class FakeMatcher:
    """Matches a query with the keyframes it is (nearly) a copy of. For tests only."""

    name = "fake"
    signature = "fake-1"

    def describe(self, frame: Frame) -> Features:
        """A grey thumbnail, the pixel grid behind it, and the grid's surface points where depth is known."""
        grey = cv2.cvtColor(frame.image, cv2.COLOR_RGB2GRAY)
        thumbnail = cv2.resize(grey, (COLUMNS, ROWS), interpolation=cv2.INTER_AREA).astype(np.float32)
        xy = np.stack(
            np.meshgrid(
                (np.arange(COLUMNS) + 0.5) * frame.width / COLUMNS - 0.5,
                (np.arange(ROWS) + 0.5) * frame.height / ROWS - 0.5,
            ),
            axis=-1,
        ).reshape(-1, 2)
        points = np.full((len(xy), 3), np.nan, dtype=np.float32)
        if frame.depth is not None and frame.camera is not None:
            u, v = np.rint(xy).astype(int).T
            u, v = u.clip(0, frame.width - 1), v.clip(0, frame.height - 1)
            xy = np.stack([u, v], axis=-1).astype(np.float64)
            z = np.where(valid_depth(frame.depth), frame.depth, np.nan)[v, u]
            points = frame.camera.points(xy, z).astype(np.float32)
        return {"thumbnail": thumbnail, "xy": xy.astype(np.float32), "points": points}

    def local_descriptors(self, features: Features) -> NDArray[np.float32]:
        """The standardised thumbnail as one (1, 768) descriptor."""
        return _standardised(features["thumbnail"])[None]

    def match(self, query: Features, references: Sequence[Features]) -> list[Matches]:
        """Identity matches with every reference whose thumbnail looks the same."""
        mine = _standardised(query["thumbnail"])
        matched = []
        for reference in references:
            known = np.isfinite(reference["points"]).all(axis=1)
            if float(mine @ _standardised(reference["thumbnail"])) < SAME_VIEW or not known.any():
                matched.append(Matches.empty())
                continue
            matched.append(
                Matches(
                    query["xy"][known].astype(np.float64),
                    reference["xy"][known].astype(np.float64),
                    reference["points"][known].astype(np.float64),
                    np.ones(int(known.sum())),
                )
            )
        return matched


def _standardised(thumbnail: NDArray[Any]) -> NDArray[np.float32]:
    """Zero mean, unit length; a flat image becomes zero and matches nothing."""
    flat = thumbnail.reshape(-1).astype(np.float32)
    flat = flat - flat.mean()
    norm = float(np.linalg.norm(flat))
    return flat / norm if norm > 1e-3 else np.zeros_like(flat)
