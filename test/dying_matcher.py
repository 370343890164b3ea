"""A matcher that kills a worker in the middle."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from mast3r_ros.frames import Frame
from mast3r_ros.matching.base import Features, Matcher
from mast3r_ros.matching.wrapped import WrappedMatcher


class DyingMatcher(WrappedMatcher):
    """Another matcher; the first process but the one that made it that describes its third frame is killed."""

    def __init__(self, matcher: Matcher, died: Path) -> None:
        super().__init__(matcher)
        self._died, self._made_in, self._described = died, os.getpid(), 0

    def describe(self, frame: Frame) -> Features:
        """What the matcher within says of a frame."""
        self._described += 1
        if self._described == 3 and os.getpid() != self._made_in and not self._died.exists():
            self._died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.inner.describe(frame)
