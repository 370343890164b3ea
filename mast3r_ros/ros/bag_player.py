"""Node ``bag_player``: plays a recording onto topics with /clock, for machines without ``ros2 bag``.

ROS 2 messages are published as they were recorded, without decoding them, so that a small machine keeps up
with raw images. Topics are renamed by ordinary remapping (``-r /old:=/new``).
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import rclpy
from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rosgraph_msgs.msg import Clock
from std_srvs.srv import Trigger

from mast3r_ros.errors import BagError, UserError
from mast3r_ros.io.bags import BagReader, open_bag
from mast3r_ros.io.bags.playback import PlaybackClock
from mast3r_ros.io.bags.ros2 import as_ros2
from mast3r_ros.ros import conversions, qos
from mast3r_ros.ros.parameters import Parameters
from mast3r_ros.ros.signals import interruptible
from mast3r_ros.tables import setting

#: Not played unless asked for by name: they are about the nodes that were recorded.
ABOUT_NODES = ("/parameter_events", "/rosout", "/clock")
#: Transforms always have listeners, which says nothing about whether the receiver of the images is there.
ALWAYS_HEARD = ("/tf", "/tf_static", *ABOUT_NODES)
#: Subscribers of one node appear one after the other: no new one for this long means that it has them all.
SETTLED_S = 0.3
#: How often pause, rate and the end are looked at where no clock is published.
IDLE_TICK_S = 0.1
#: What the last messages are given to arrive before the publishers disappear.
LAST_MESSAGES_WAIT_S = 1.0


@dataclass(frozen=True)
class BagPlayerParameters:
    """Parameters of the bag player."""

    bag: str = setting("", "Recording to play: a ROS 2 folder, .mcap or .db3, or a ROS 1 .bag.", fixed=True)
    rate: float = setting(1.0, "Seconds of recording per second.", low=0.01, high=100)
    start_offset: float = setting(
        0.0,
        "Start this far into the recording; latched topics before it are sent first.",
        low=0,
        high=1e6,
        unit="s",
        fixed=True,
    )
    loop: bool = setting(False, "Start again at the end; /clock then jumps back.")
    topics: str = setting("", "Topics to play, separated by spaces; empty plays all.", fixed=True)
    clock_rate: float = setting(
        40.0, "How often /clock is published; 0 for no /clock.", low=0, high=1000, unit="Hz", fixed=True
    )
    start_paused: bool = setting(False, "Wait for ~/resume before the first message.", fixed=True)
    wait_for_subscribers: float = setting(
        5.0, "Longest wait for somebody to listen to the images.", low=0, high=3600, unit="s", fixed=True
    )
    on_end: str = setting("exit", "exit, or hold: stay, with /clock standing at the end.", choices=("exit", "hold"))


class BagPlayer(Node):
    """Publishes a recording's messages when they are due.

    Raises:
        BagError: if the recording cannot be read or holds nothing that can be played.
        ParameterError: for parameters that cannot be.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__("bag_player", **options)
        try:
            table = Parameters(self, BagPlayerParameters, managed=False)
            self._settings = table.snapshot()
            table.freeze(True)
            self._bag, self._start_ns = _opened(self._settings)
            self._wire = as_ros2(self._bag, self._chosen())
            self._outlets = self._advertise()
        except UserError:
            super().destroy_node()
            raise
        self.clock = PlaybackClock(self._start_ns, self._settings.rate, paused=True)
        self._rate = self._settings.rate
        self._tick_s = 1.0 / self._settings.clock_rate if self._settings.clock_rate else IDLE_TICK_S
        self._next_tick = 0.0
        self._ticker = self.create_publisher(Clock, "/clock", qos.reliable(1)) if self._settings.clock_rate else None
        self.create_service(Trigger, "~/pause", self._pause)
        self.create_service(Trigger, "~/resume", self._resume)
        self.played = 0
        self.latest_s = 0.0

    def play(self) -> None:
        """Play to the end (or until the clock is stopped), on the calling thread."""
        self._wait_for_subscribers()
        length = (self._bag.end_ns - self._start_ns) / 1e9
        self.get_logger().info(f"playing {self._bag.path}: {length:.1f} s on {len(self._outlets)} topics")
        if not self._settings.start_paused:
            self.clock.resume()
        self._send_latched()
        self._play_through()
        while self.get_parameter("loop").value and not self.clock.stopped:
            self.clock.jump(self._start_ns)
            self._next_tick = 0.0  # time on /clock goes back before the first image does
            self._play_through()
        if self.get_parameter("on_end").value == "hold":
            self.clock.pause()
            self._wait_for(self._bag.end_ns + 1)
        self._say_farewell()

    def close(self) -> None:
        """Close the recording."""
        self.clock.stop()
        self._bag.close()

    def _chosen(self) -> list[str]:
        """Names of the topics to play."""
        names = self._settings.topics.split()
        unknown = [name for name in names if name not in self._bag.topics]
        if unknown:
            known = ", ".join(sorted(self._bag.topics))
            raise BagError(f"{self._bag.path} has no topic {', '.join(unknown)}: it has {known}")
        return names or [name for name, topic in self._bag.topics.items() if topic.count and name not in ABOUT_NODES]

    def _advertise(self) -> dict[str, Publisher]:
        """A publisher for every topic whose type is installed.

        Durability is the recorded one. All are reliable, whatever was recorded: a reliable publisher serves
        every subscriber, and best-effort images are often lost between processes (docs/ros.md).
        """
        outlets, missing = {}, []
        for name in self._chosen():
            kind = message_class(self._wire[name].type) if name in self._wire else None
            if kind is None:
                missing.append(f"{name} ({self._bag.topics[name].type})")
                continue
            profile = qos.reliable(10)
            if self._bag.topics[name].latched:
                profile = qos.reliable(max(10, min(self._bag.topics[name].count, 1000)))
                profile.durability = DurabilityPolicy.TRANSIENT_LOCAL
            outlets[name] = self.create_publisher(kind, name, profile, qos_overriding_options=qos.overridable())
        if missing:
            self.get_logger().warning(
                f"not played, because their message types are not installed: {', '.join(missing)}"
            )
        if not outlets:
            raise BagError(f"{self._bag.path} has no topic that can be played")
        return outlets

    def _wait_for_subscribers(self) -> None:
        """Wait until somebody listens, and nobody new has come for a moment."""
        awaited = [name for name in self._outlets if self._bag.topics[name].type.endswith("Image")]
        awaited = awaited or [name for name in self._outlets if name not in ALWAYS_HEARD] or list(self._outlets)
        deadline = time.monotonic() + self._settings.wait_for_subscribers
        heard, since = 0, time.monotonic()
        while time.monotonic() < deadline and not self.clock.stopped:
            count = sum(outlet.get_subscription_count() for outlet in self._outlets.values())
            if count != heard:
                heard, since = count, time.monotonic()
            listening = any(self._outlets[name].get_subscription_count() for name in awaited)
            if listening and time.monotonic() - since >= SETTLED_S:
                return
            self._tick_if_due()  # a node on simulated time may need the clock before it listens
            self.clock.wait_until(self._bag.end_ns + 1, 0.02)
        if self._settings.wait_for_subscribers and not self.clock.stopped:
            self.get_logger().warning(f"nobody listens to {', '.join(awaited)}: playing nevertheless")

    def _send_latched(self) -> None:
        """What was said once before the start and holds since, such as static transforms."""
        if self._start_ns == self._bag.start_ns:
            return
        latched = [name for name in self._outlets if self._bag.topics[name].latched]
        for name, stamp_ns, data in self._bag.serialized(latched):
            if stamp_ns < self._start_ns:
                self._publish(name, data)

    def _play_through(self) -> None:
        for name, stamp_ns, data in self._bag.serialized(self._outlets):
            if stamp_ns < self._start_ns:
                continue
            if not self._wait_for(stamp_ns):
                return
            self.latest_s = max(self.latest_s, (self.clock.now_ns() - stamp_ns) / 1e9 / self._rate)
            self._publish(name, data)

    def _publish(self, name: str, data: bytes) -> None:
        try:
            message = self._wire[name].to_cdr(data)
        except Exception as error:  # damaged bytes can fail in any way
            self._bag.report(f"a message on {name} is damaged ({error}): not played")
            return
        self._outlets[name].publish(message)
        self.played += 1

    def _wait_for(self, stamp_ns: int) -> bool:
        """Wait for an instant of the recording while /clock ticks; False if playing was stopped meanwhile."""
        while not self.clock.stopped:
            self._tick_if_due()
            if self.clock.wait_until(stamp_ns, max(self._next_tick - time.monotonic(), 0.0)):
                return True
        return False

    def _tick_if_due(self) -> None:
        """Publish /clock, and follow the parameter ``rate``."""
        now = time.monotonic()
        if now < self._next_tick:
            return
        self._next_tick = max(self._next_tick + self._tick_s, now)
        rate = float(self.get_parameter("rate").value)
        if rate != self._rate:
            self._rate = rate
            self.clock.set_rate(rate)
        if self._ticker is not None:
            self._ticker.publish(Clock(clock=conversions.to_time(self.clock.now_ns())))

    def _say_farewell(self) -> None:
        """Let the last messages arrive before the publishers go."""
        if self.clock.stopped:
            return
        deadline = time.monotonic() + LAST_MESSAGES_WAIT_S
        for outlet in self._outlets.values():
            left = max(deadline - time.monotonic(), 0.0)
            outlet.wait_for_all_acked(Duration(seconds=left))
        self.get_logger().info(f"played {self.played} messages, the latest of them {self.latest_s * 1e3:.0f} ms late")

    def _pause(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self.clock.pause()
        return self._answer(response)

    def _resume(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self.clock.resume()
        return self._answer(response)

    def _answer(self, response: Trigger.Response) -> Trigger.Response:
        at_s = (self.clock.now_ns() - self._bag.start_ns) / 1e9
        response.success = True
        response.message = f"{'paused' if self.clock.paused else 'playing'} at {at_s:.3f} s"
        return response


def _opened(settings: BagPlayerParameters) -> tuple[BagReader, int]:
    """The recording and the instant to start at, nanoseconds. Raises BagError."""
    if not settings.bag:
        raise BagError("no recording given: set the parameter bag (--ros-args -p bag:=PATH)")
    bag = open_bag(Path(settings.bag).expanduser())
    start_ns = bag.start_ns + round(settings.start_offset * 1e9)
    if start_ns > bag.end_ns:
        length = (bag.end_ns - bag.start_ns) / 1e9
        raise BagError(f"start_offset is {settings.start_offset:g} s, the recording lasts {length:.1f} s")
    return bag, start_ns


def message_class(msgtype: str) -> type | None:
    """Message class of a type such as "sensor_msgs/msg/Image", or None where it is not installed.

    The name comes from a recording: a package without messages, however it is called, is not imported to look.
    """
    package, _, name = msgtype.partition("/msg/")
    spec = find_spec(package) if package.isidentifier() else None
    if not any((Path(folder) / "msg").is_dir() for folder in (spec and spec.submodule_search_locations) or ()):
        return None
    try:
        kind = getattr(import_module(f"{package}.msg"), name, None)
    except ImportError:
        return None
    return kind if isinstance(kind, type) else None


def main(args: Sequence[str] | None = None) -> int:
    """Play the recording named by the parameters; exit code 1, with the reason, where that cannot be done."""
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    executor = SingleThreadedExecutor()
    spinner = threading.Thread(target=executor.spin, name="bag_player_services")
    try:
        player = BagPlayer()
        executor.add_node(player)
        with interruptible(player.clock.stop):
            spinner.start()
            try:
                player.play()
            finally:
                # In this order: a spin thread that outlives the interpreter aborts the process.
                executor.shutdown()
                spinner.join()
                player.close()
                player.destroy_node()
    except KeyboardInterrupt:
        pass  # before there was anything to end in order
    except UserError as error:
        print(f"bag_player: {error}", file=sys.stderr)
        return 1
    finally:
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
