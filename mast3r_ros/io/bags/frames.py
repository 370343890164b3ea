"""From messages to frames: images joined with the camera_info and depth of the same moment."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.errors import CodecError
from mast3r_ros.frames import Camera, Frame
from mast3r_ros.io import codec
from mast3r_ros.io.bags.messages import decode_colour, stamp_ns
from mast3r_ros.io.bags.plan import Plan, usable_camera
from mast3r_ros.io.bags.readable import Readable

#: How long a frame waits for its camera_info and depth, nanoseconds of recording time.
LONGEST_WAIT_NS = 250_000_000


class FrameReader:
    """Joins images with the camera_info and depth of the same moment while a bag is read once."""

    def __init__(self, bag: Readable, plan: Plan, max_delay_ns: int) -> None:
        self.bag, self.plan, self.topics, self.max_delay_ns = bag, plan, plan.topics, max_delay_ns
        # Each message with its time: the header's, or that of recording where the images have none.
        self._waiting: deque[tuple[int, int, Any]] = deque()
        self._infos: deque[tuple[int, Any]] = deque(maxlen=200)
        self._depths: deque[tuple[int, Any]] = deque(maxlen=300)
        self._stamped = bag.topics[plan.topics.image].stamped
        self._camera: Camera | None = None
        self._eight_bits = codec.EightBits()
        self._depth = plan.depth_of
        self._depth_topic = self.topics.depth if plan.depth_of else None

    def __iter__(self) -> Iterator[Frame]:
        names = [self.topics.image, self.topics.camera_info, self._depth_topic]
        for doubt in self.plan.doubts:
            self.bag.warn(doubt)
        if self.topics.camera_info and self.bag.topics[self.topics.camera_info].count:
            # Images recorded before the first camera_info came from the same camera.
            self._infos.append((0, self.bag.first(self.topics.camera_info)))
        for topic, recorded_ns, message in self.bag.messages([name for name in names if name]):
            time_ns = stamp_ns(message) or (0 if self._stamped else recorded_ns)
            if topic == self.topics.image:
                self._waiting.append((recorded_ns, time_ns or recorded_ns, message))
            elif topic == self.topics.camera_info:
                self._infos.append((time_ns, message))
            else:
                self._depths.append((time_ns, message))
                self._forget_depths()
            while self._waiting and self._is_due(recorded_ns):
                yield from self._frame(*self._waiting.popleft()[1:])
        while self._waiting:
            yield from self._frame(*self._waiting.popleft()[1:])

    def _is_due(self, now_ns: int) -> bool:
        """Whether nothing better can still arrive for the oldest waiting image, or it has waited enough."""
        recorded_ns, time_ns, _ = self._waiting[0]
        if now_ns - recorded_ns > LONGEST_WAIT_NS + self.max_delay_ns:
            return True
        has_depth = not self._depth_topic or (self._depths and self._depths[-1][0] >= time_ns)
        has_info = not self.topics.camera_info or (self._infos and self._infos[-1][0] >= time_ns)
        return bool(has_depth and has_info)

    def _forget_depths(self) -> None:
        """Drop the depth images that no waiting or coming image can need: there may be far more of them."""
        last = self._depths[-1][0]
        newest = self._waiting[0][1] if self._waiting else last - LONGEST_WAIT_NS
        while self._depths[0][0] < min(newest, last) - self.max_delay_ns:
            self._depths.popleft()

    def _frame(self, time_ns: int, message: Any) -> Iterator[Frame]:
        """The frame of one image message; nothing if the image is damaged."""
        try:
            image = decode_colour(message, self._eight_bits)
        except CodecError as error:
            self.bag.report(f"an image at {time_ns / 1e9:.3f} s cannot be decoded ({error}): skipped")
            return
        camera = self._camera_at(time_ns, image.shape[1], image.shape[0])
        depth = self._depth_at(time_ns, message, camera, image.shape[:2])
        yield Frame(image, camera, time_ns, depth, name=str(time_ns))

    def _camera_at(self, time_ns: int, width: int, height: int) -> Camera | None:
        if self.plan.camera_given is not None:
            camera: Camera | None = codec.fit_camera_to_image(self.plan.camera_given, width, height)
        elif self._infos:
            _, info = min(self._infos, key=lambda timed: abs(timed[0] - time_ns))
            camera = usable_camera(self.bag, self.topics, info, (width, height))
        else:
            return None
        if camera is None or self._camera is None or not camera.same_as(self._camera):
            self._camera = camera
        return self._camera  # one object for all frames, so that what it caches is shared

    def _depth_at(
        self, time_ns: int, image: Any, camera: Camera | None, shape: tuple[int, ...]
    ) -> NDArray[np.float32] | None:
        if self._depth is None or not self._depths:
            return None
        nearest_ns, nearest = min(self._depths, key=lambda timed: abs(timed[0] - time_ns))
        if abs(nearest_ns - time_ns) > self.max_delay_ns:
            return None
        return self._depth.registered(nearest, image, camera, (int(shape[1]), int(shape[0])), time_ns)
