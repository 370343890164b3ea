"""A matcher that remembers the features of frames, for runs that ask many maps about the same frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.frames import Frame
from mast3r_ros.matching.base import Features, Matcher, Matches


class DescribedOnce:
    """Another matcher, which describes each frame once, for as long as somebody holds the frame."""

    def __init__(self, matcher: Matcher) -> None:
        self._matcher = matcher
        self._known: WeakKeyDictionary[Frame, Features] = WeakKeyDictionary()
        self.name = matcher.name

    @property
    def signature(self) -> str:
        """Of the matcher within: its features are the same."""
        return self._matcher.signature

    def describe(self, frame: Frame) -> Features:
        """What the matcher within says, or said, of the frame."""
        if frame not in self._known:
            self._known[frame] = self._matcher.describe(frame)
        return self._known[frame]

    def local_descriptors(self, features: Features) -> NDArray[np.float32]:
        """Of the matcher within."""
        return self._matcher.local_descriptors(features)

    def match(self, query: Features, references: Sequence[Features]) -> list[Matches]:
        """Of the matcher within."""
        return self._matcher.match(query, references)

    def __getattr__(self, name: str) -> Any:
        # What only some matchers can do (triangulate, predict depth) they still can.
        return getattr(self._matcher, name)
