"""Whether an image is worth looking at by its date: neither too old, nor from the future, nor out of order."""

from __future__ import annotations

import time
from collections.abc import Callable

from mast3r_ros.ros.intake import Arrival, FrameRefused
from mast3r_ros.ros.node_context import NodeContext

#: Image stamps that go back by more than this are a new beginning (a bag played again), seconds.
JUMP_S = 1.0


class FrameDates:
    """Holds images' stamps against the node's clock and against the images before.

    Args:
        start_anew: called when an image's stamp says that time went back.
    """

    def __init__(self, context: NodeContext, start_anew: Callable[[], None]) -> None:
        self._clock = context.node.get_clock()
        self._statistics = context.statistics
        self._complaints = context.complaints
        self._start_anew = start_anew
        self._last_stamp_ns = 0
        self._jumped_at_ns = self._jumped_back_ns = 0
        self._behind_since_ns: int | None = None

    def time_jumped(self, back_ns: int) -> None:
        """Time went back, the node's clock by ``back_ns``."""
        self._last_stamp_ns = 0
        self._jumped_at_ns, self._jumped_back_ns = time.monotonic_ns(), back_ns

    def is_timely(self, arrival: Arrival, max_age_s: float) -> bool:
        """Whether the image is to be looked at; one that is not was counted. An age of 0 allows any.

        Raises:
            FrameRefused: for an image that cannot be dated, or is from the future.
        """
        if arrival.stamp_ns == 0:
            raise FrameRefused("no_time", "images have no time (their stamps are 0): let the driver stamp them")
        now_ns, stamp_ns = self._clock.now().nanoseconds, arrival.stamp_ns
        back = (self._last_stamp_ns - stamp_ns) * 1e-9
        if max_age_s > 0 and not self._is_recent(arrival, now_ns, back, max_age_s):
            return False
        self._complaints.cured("no_time", "no_clock", "from_future", "stale")
        self._behind_since_ns = None
        if back > JUMP_S:
            self._complaints.say("time_jump", f"image stamps went back by {back:.1f} s: starting anew")
            self._start_anew()
        elif back > 0:
            self._statistics.count("out of order")
            return False
        self._last_stamp_ns = stamp_ns
        return True

    def _is_recent(self, arrival: Arrival, now_ns: int, back: float, max_age_s: float) -> bool:
        if now_ns == 0:
            raise FrameRefused("no_clock", "use_sim_time is set but nobody publishes /clock: images cannot be dated")
        age = (now_ns - arrival.stamp_ns) * 1e-9
        if abs(age) <= max_age_s:
            return True
        if self._is_beside_a_jump(arrival, age, back, max_age_s):
            self._statistics.count("beside a jump in time")
            return False
        if age < 0:
            raise FrameRefused(
                "from_future",
                f"images are stamped {-age:.1f} s in the future: synchronise the clocks, or set use_sim_time",
            )
        self._statistics.count("stale")
        self._complaints.say(
            "stale",
            f"images are {age:.1f} s old when they could be looked at, max_frame_age is {max_age_s:g} s: "
            "dropped. Replaying a recording needs use_sim_time; a slow machine needs a lower camera rate",
        )
        return False

    def _is_beside_a_jump(self, arrival: Arrival, age: float, back: float, max_age_s: float) -> bool:
        """Whether an image belongs to the other side of a jump of simulated time, such as a recording's new beginning.

        Images and /clock come by different ways. For a moment after a jump, for as long as an image may be old, images
        of before are ahead of the clock, or those of after behind it: no clocks are to be synchronised.
        """
        if not self._clock.ros_time_is_active:
            return False
        longest_ns = max_age_s * 1e9
        if age < 0:
            since_ns = arrival.received_ns - self._jumped_at_ns
            return since_ns < longest_ns and -age * 1e9 < self._jumped_back_ns + longest_ns
        if back <= JUMP_S:
            return False
        if self._behind_since_ns is None:
            self._behind_since_ns = arrival.received_ns
        return arrival.received_ns - self._behind_since_ns < longest_ns
