"""A matcher that forwards every call to another one; subclasses change single methods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.frames import Frame
from mast3r_ros.matching.base import Capabilities, Features, Matcher, Matches, capabilities


class WrappedMatcher:
    """Has the capabilities of the matcher within. Features are the same, so either can use the other's cache."""

    def __init__(self, inner: Matcher) -> None:
        self.inner = inner
        self.name = inner.name

    @property
    def signature(self) -> str:
        """Of the matcher within."""
        return self.inner.signature

    @property
    def capabilities(self) -> Capabilities:
        """Of the matcher within."""
        return capabilities(self.inner)

    def describe(self, frame: Frame) -> Features:
        """Features as the matcher within makes them."""
        return self.inner.describe(frame)

    def local_descriptors(self, features: Features) -> NDArray[np.float32]:
        """Descriptors (N, D) of the matcher within."""
        return self.inner.local_descriptors(features)

    def match(self, query: Features, references: Sequence[Features]) -> list[Matches]:
        """Matches that the matcher within finds with each reference."""
        return self.inner.match(query, references)

    def __getattr__(self, name: str) -> Any:
        """The methods that its capabilities promise, and its settings."""
        if name == "inner":  # not there yet, while this object is being unpickled
            raise AttributeError(name)
        return getattr(self.inner, name)
