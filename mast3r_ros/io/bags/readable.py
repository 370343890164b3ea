"""What choosing topics and joining frames need of an open recording; :class:`mast3r_ros.io.bags.BagReader` is one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from mast3r_ros.io.bags.topics import Topic
from mast3r_ros.transforms import TransformBuffer


class Readable(Protocol):
    """An open recording."""

    @property
    def path(self) -> Path:
        """What was opened."""

    @property
    def topics(self) -> Mapping[str, Topic]:
        """Every topic by its name."""

    def messages(self, topics: list[str], /) -> Iterator[tuple[str, int, Any]]:
        """(topic, time of recording in nanoseconds, message) in the order of recording."""

    def first(self, topic: str, /) -> Any:
        """The first message on a topic. Raises BagError if there is none."""

    def transforms(self, image_topic: str, /) -> TransformBuffer:
        """TF of the namespace that a topic is in."""

    def report(self, problem: str, /) -> None:
        """Tell that something cannot be read."""

    def warn(self, doubt: str, /) -> None:
        """Tell once that something is doubtful."""
