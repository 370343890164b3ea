"""A long drive in fast motion: two relocalizers beside each other, and what a working day brings.

Each trial is a stretch of the drive. Poses are held against the truth; both relocalizers must publish in every
stretch, with no more threads and, as the campaign looks, no more memory than at the beginning.
"""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.geometry import se3
from mast3r_ros.lab.endure.campaign import Rng, Trial, Wrong
from mast3r_ros.lab.endure.life import lived, world
from mast3r_ros.lab.endure.scene import wrong
from mast3r_ros.lab.live.disturbed import NAMES, Disturbed
from mast3r_ros.lab.live.robot import Pace
from mast3r_ros.memory import resident_mib

#: Simulated seconds of a stretch, and from one image to the next; keyframes of the map, half a metre apart.
STRETCH_S, STEP_S, VIEWS = 15.0, 2.0, 40
#: Share of the stretches with an event; how long both relocalizers have until the next pose, and their threads.
EVENTS, RECOVERY_S, MORE_THREADS = 0.25, 25.0, 4
#: Odometry is off by this share of the way, and turns so much on it, rad/m: a usual robot on wheels.
ODOMETRY_SCALE, ODOMETRY_TURN = 1.01, 0.002
#: Simulated seconds between two looks at the memory that are reported.
REPORTED_S = 900.0


class Drive:
    """A robot that drives up and down a corridor of 20 m."""

    def __init__(self, folder: Path, speed: float) -> None:
        self._bench = Disturbed(
            folder / "map", world(folder / "map", VIEWS), self._judge, Pace(STEP_S, speed), len(NAMES)
        )
        self._robot, self._ahead = self._bench.robot, 1
        self._robot.route, self._robot.odometry = self._next, self._drifted
        self._odom_T_start = np.eye(4)
        self._threads: list[int] = []
        self._memory: list[float] = []
        if why := self._bench.silent(RECOVERY_S):
            raise Wrong("the nodes do not start", why)

    def trial(self, rng: Rng) -> str:
        """One stretch, with or without an event at its beginning."""
        before = list(self._bench.published)
        events = [self._loop, self._jump, self._driver, self._without, self._restart, self._reload, self._carried]
        outcome = events[rng.integers(len(events))](rng) if rng.random() < EVENTS else "undisturbed"
        self._pass(STRETCH_S)
        self._robot.quiet = frozenset()
        if why := self._bench.waits(before, RECOVERY_S):
            raise Wrong(f"no pose in a stretch: {outcome}", why)
        if self._bench.failures:
            told, self._bench.failures = self._bench.failures, []
            raise Wrong(f"a wrong pose or a failed callback: {outcome}", "\n".join(told[:5]))
        self._look()
        return outcome

    def facts(self) -> dict[str, Any]:
        """Latency, memory every quarter of a simulated hour, threads."""
        memory = [round(mib) for mib in self._memory]
        return {**lived(self._bench), "memory_mib": memory, "threads": [min(self._threads), max(self._threads)]}

    def _look(self) -> None:
        self._threads.append(threading.active_count())
        if self._threads[-1] > self._threads[0] + MORE_THREADS:
            names = ", ".join(sorted(thread.name for thread in threading.enumerate()))
            raise Wrong("threads grow", f"from {self._threads[0]} to {self._threads[-1]}: {names}")
        if self._robot.simulated_s >= REPORTED_S * (len(self._memory) + 1):
            self._memory.append(resident_mib())

    def _judge(self, place: int, map_T_base: NDArray[np.float64]) -> None:
        if off := wrong(self._robot.world.map_T_base[place], map_T_base):
            raise Wrong("wrong pose", f"{off} at place {place}")

    def _pass(self, seconds: float) -> None:
        until = self._robot.simulated_s + seconds
        while self._robot.simulated_s < until:
            threading.Event().wait(0.02)

    def _next(self, place: int) -> int:
        if not 0 <= place + self._ahead < VIEWS:
            self._ahead = -self._ahead
        return place + self._ahead

    def _drifted(self, place: int) -> NDArray[np.float64]:
        return self._odom_T_start @ self._driven(place)

    def _driven(self, place: int) -> NDArray[np.float64]:
        """What odometry says of the way from the beginning of the corridor: too long, and bent."""
        way = self._robot.world.map_T_base[place][0, 3]
        turn = ODOMETRY_TURN * way
        c, s = np.cos(turn), np.sin(turn)
        end = [ODOMETRY_SCALE * way, turn * way / 2, 0]
        return se3.make([[c, -s, 0], [s, c, 0], [0, 0, 1]], end)

    # -- what happens on the way --------------------------------------------------------------------

    def _loop(self, rng: Rng) -> str:
        self._robot.jump(-float(rng.choice([20.0, 600.0, 3600.0])), place=0)
        return "recording began anew"

    def _jump(self, rng: Rng) -> str:
        seconds = float(rng.choice([-5.0, -0.5, 2.0, 3600.0]))
        self._robot.jump(seconds)
        return f"clock {'back' if seconds < 0 else 'ahead'}"

    def _driver(self, rng: Rng) -> str:
        self._robot.renew_camera()
        return "camera began anew"

    def _without(self, rng: Rng) -> str:
        name = ("image", "info", "odometry")[rng.integers(3)]
        self._robot.quiet = frozenset([name])
        self._pass(float(rng.uniform(2.0, 20.0)))
        self._robot.quiet = frozenset()
        return f"no {name} for a while"

    def _restart(self, rng: Rng) -> str:
        number = int(rng.integers(len(NAMES)))
        down = ("deactivate", "cleanup")[: 1 + int(rng.integers(2))]
        for transition in (*down, *(("configure", "activate")[2 - len(down) :])):
            if not self._bench.change(transition, number):
                raise Wrong(f"{transition} is not possible", f"{NAMES[number]} after {down}")
            self._pass(STEP_S)
        return f"{NAMES[number]} restarted"

    def _reload(self, rng: Rng) -> str:
        number = int(rng.integers(len(NAMES)))
        self._bench.call(("reload_map", "reinitialize")[rng.integers(2)], number)
        return "map or track forgotten"

    def _carried(self, rng: Rng) -> str:
        """Somebody lifts the robot: it is elsewhere, and odometry says nothing of it."""
        place, told = int(rng.integers(VIEWS)), bool(rng.integers(2))
        with self._robot.lock:
            self._odom_T_start = self._drifted(self._robot.place) @ se3.inverse(self._driven(place))
            self._robot.place = place
        if told:
            for number in range(len(NAMES)):
                self._bench.call("reinitialize", number)
        return f"carried elsewhere{', and told so' if told else ''}"


def make(folder: Path, speed: float) -> Trial:
    """The campaign's trials."""
    return Drive(folder, speed).trial


def at_speed(speed: float) -> partial[Trial]:
    """Makes the trials of a drive at so many simulated seconds in a real one."""
    return partial(make, speed=speed)
