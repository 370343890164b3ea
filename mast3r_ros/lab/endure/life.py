"""A node's life in fast motion: transitions, parameters, clocks, drivers and messages, and always images.

Each trial is one event. Every so often the node must find itself again within seconds, with no more threads than at the
beginning; its memory is looked at by the campaign. Poses that it publishes meanwhile are held against the truth.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.geometry import se3
from mast3r_ros.lab.endure.campaign import Rng, Trial, Wrong
from mast3r_ros.lab.endure.mutations import any_number, any_text, mutate_message
from mast3r_ros.lab.endure.scene import BASE_T_CAMERA, CAMERA, VIEWS, map_T_camera, small_map, view, wrong
from mast3r_ros.lab.live.disturbed import TRANSITIONS, Disturbed
from mast3r_ros.lab.live.robot import World
from mast3r_ros.matching import create
from mast3r_ros.settings import Settings

#: One in so many events is followed by a look whether the node still works; how long it has, and its threads.
LOOK_EVERY, RECOVERY_S, MORE_THREADS = 25, 30.0, 4
#: Between two broken messages, so that the node gets to see most of them, seconds.
BETWEEN_S = 0.02


def world(folder: Path, views: int) -> World:
    """A place with a map of so many views, which is saved to a folder."""
    keyframes = small_map(views)
    keyframes.prepare(create("fake"))
    keyframes.save(folder)
    places = [map_T_camera(n) @ se3.inverse(BASE_T_CAMERA) for n in range(views)]
    images, depths = zip(*(view(n) for n in range(views)), strict=True)
    return World(images, depths, CAMERA, places, BASE_T_CAMERA)


def lived(bench: Disturbed) -> dict[str, Any]:
    """How long a life was, and the latency from image to pose as the robot sees it."""
    late = 1e3 * np.array(bench.latencies or [np.nan])
    return {
        "poses": sum(bench.published),
        "simulated_hours": bench.robot.simulated_s / 3600,
        "image_to_pose_ms": {f"p{p:g}": float(np.percentile(late, p)) for p in (50, 99, 99.9)},
    }


class Life:
    """The events of a life."""

    def __init__(self, folder: Path) -> None:
        self._bench = Disturbed(folder / "map", world(folder / "map", VIEWS), self._judge)
        self._defaults = Settings().values()
        self._events = 0
        self._threads: int | None = None
        if why := self._bench.silent(RECOVERY_S):
            raise Wrong("the node does not start", why)

    def trial(self, rng: Rng) -> str:
        """One event."""
        events = [self._transition] * 4 + [self._parameter] * 2 + [self._message] * 3
        events += [self._clock, self._camera, self._service, self._move]
        return self._looked_after(events[rng.integers(len(events))](rng))

    def message(self, rng: Rng) -> str:
        """One broken message over DDS, to a node that stays active."""
        outcome = self._message(rng)
        time.sleep(BETWEEN_S)
        return self._looked_after(outcome)

    def _looked_after(self, outcome: str) -> str:
        self._events += 1
        if self._events % LOOK_EVERY == 0:
            self._look()
        if self._bench.failures:
            told, self._bench.failures = self._bench.failures, []
            raise Wrong(f"a wrong pose or a failed callback after {outcome.split()[0]}", "\n".join(told[:5]))
        return outcome

    def facts(self) -> dict[str, Any]:
        """Latency from image to pose as the robot sees it, and how long the life was."""
        return {**lived(self._bench), "threads": threading.active_count()}

    def _look(self) -> None:
        for name in ("max_rate", "max_frame_age"):
            self._bench.set_parameter(name, self._defaults[name])
        if why := self._bench.silent(RECOVERY_S):
            raise Wrong("the node publishes no pose any more", why)
        threads = threading.active_count()
        self._threads = threads if self._threads is None else self._threads
        if threads > self._threads + MORE_THREADS:
            names = ", ".join(sorted(thread.name for thread in threading.enumerate()))
            raise Wrong("threads grow", f"from {self._threads} to {threads}: {names}")

    def _judge(self, place: int, map_T_base: NDArray[np.float64]) -> None:
        if off := wrong(self._bench.robot.world.map_T_base[place], map_T_base):
            raise Wrong("wrong pose", f"{off} at place {place}")

    def _transition(self, rng: Rng) -> str:
        name = list(TRANSITIONS)[rng.integers(len(TRANSITIONS))]
        return f"{name} {'done' if self._bench.change(name) else 'not possible'}"

    def _parameter(self, rng: Rng) -> str:
        name = ("max_rate", "max_frame_age", "keyframes", "gates.min_inliers", "tf_rate", "path_length")[
            rng.integers(6)
        ]
        default = self._defaults[name]
        value: Any = any_text(rng) if rng.random() < 0.2 else any_number(rng, float(default))
        if isinstance(default, int) and isinstance(value, float) and np.isfinite(value):
            value = int(np.clip(value, -(2**62), 2**62))
        accepted = self._bench.set_parameter(name, value)
        self._bench.set_parameter(name, default)
        return f"parameter {'accepted' if accepted else 'refused'}"

    def _message(self, rng: Rng) -> str:
        chosen = ("image", "info", "initialpose", "depth", "tf")[rng.integers(5)]

        def spoil(name: str, message: Any) -> None:
            if name == chosen:
                mutate_message(rng, message)

        self._bench.robot.send(spoil)
        return f"message {chosen} broken"

    def _clock(self, rng: Rng) -> str:
        seconds = float(rng.choice([-3600.0, -5.0, -0.5, 0.5, 30.0, 3600.0]))
        self._bench.robot.jump(seconds)
        return f"clock {'back' if seconds < 0 else 'ahead'}"

    def _camera(self, rng: Rng) -> str:
        self._bench.robot.renew_camera()
        return "camera began anew"

    def _service(self, rng: Rng) -> str:
        name = ("reload_map", "reinitialize")[rng.integers(2)]
        self._bench.call(name)
        return f"service {name}"

    def _move(self, rng: Rng) -> str:
        self._bench.robot.place = int(rng.integers(VIEWS))
        return "robot elsewhere"


def make(folder: Path) -> Trial:
    """The campaign's trials."""
    return Life(folder).trial


def make_messages(folder: Path) -> Trial:
    """The trials of campaign *messages* over DDS."""
    return Life(folder).message
