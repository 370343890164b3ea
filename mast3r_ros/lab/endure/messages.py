"""Messages of broken drivers and hostile publishers, through intake and core: refused, or harmless.

Each trial changes a field or two of one message of a good set. Whatever comes of it, a good set after it must be
localized as if nothing had been. A trial takes milliseconds: pictures are small, few rounds of RANSAC are enough for
copies of keyframes, and what makes no other frame than one that was judged is judged once.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy, deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from mast3r_ros.frames import Frame
from mast3r_ros.geometry import se3
from mast3r_ros.lab.endure.campaign import Rng, Trial, Wrong
from mast3r_ros.lab.endure.mutations import any_integer, any_number, any_text, mutate_message
from mast3r_ros.lab.endure.scene import (
    BASE_T_CAMERA,
    CAMERA,
    CAMERA_FRAME,
    STAMP_NS,
    VIEWS,
    check_pose,
    map_T_camera,
    small_map,
    view,
)
from mast3r_ros.localization.pose_prior import PosePrior
from mast3r_ros.matching import create
from mast3r_ros.node_settings import CommonSettings
from mast3r_ros.pipeline import Relocalizer
from mast3r_ros.settings import Settings
from mast3r_ros.transforms import TransformBuffer

#: One in so many trials is followed by a look whether a good set is still localized.
GOOD_EVERY = 50
#: What makes an answer cheap, and no more easily right: few rounds of RANSAC are enough for copies of keyframes. Fewer
#: matches would be cheaper still, but gates refuse more of what comes of them: wrong poses would go unseen.
CHEAP = Settings().changed({"solver.iterations": 20})
#: Frames whose answer is remembered.
REMEMBERED = 1000
#: Nobody publishes beside a trial: what is not here will not come.
AT_ONCE = CommonSettings(depth_wait=0.0)


@dataclass
class Silent:
    """A logger that keeps nothing."""

    said: int = 0

    def warning(self, text: str) -> None:
        """Count a warning."""
        self.said += 1


@dataclass
class Messages:
    """Good messages of a view, and what they go through."""

    relocalizer: Relocalizer
    intake: Any
    complaints: Any
    sets: list[dict[str, Any]] = field(default_factory=list)
    stamp_ns: int = STAMP_NS
    judged: dict[tuple[Any, ...], str] = field(default_factory=dict)
    unlooked: int = 0

    def trial(self, rng: Rng) -> str:
        """One set with something wrong."""
        kinds: list[Callable[[Rng], str]] = [self._transform, self._prior, self._setting, *[self._pictures] * 6]
        outcome = kinds[rng.integers(len(kinds))](rng)
        self.unlooked += 1
        if rng.integers(GOOD_EVERY) == 0:
            self._look(int(rng.integers(VIEWS)), outcome)
        return outcome

    def _look(self, number: int, outcome: str) -> None:
        """A good set is localized, whatever was before it."""
        unlooked, self.unlooked = self.unlooked, 0
        after = self._judged(self._frame(number), number, "good set after a bad one")
        if after != "localized":
            why = f"one of the {unlooked} trials before has spoiled it; the last one was: {outcome}"
            raise Wrong(f"a good set after bad ones is {after}", why)

    def _pictures(self, rng: Rng) -> str:
        number = int(rng.integers(VIEWS))
        kind = ("image", "compressed", "info", "depth")[rng.integers(4)]
        messages = self._set(number, kind)
        if kind == "compressed":
            messages["image"] = messages["compressed"]
            kind = "image"
        if kind != "depth" and rng.integers(2):
            del messages["depth"]
        changed = [mutate_message(rng, messages[kind]) for _ in range(int(rng.integers(1, 3)))]
        return f"{kind} {self._localized(messages, number, f'{kind}: {changed}')}"

    def _localized(self, messages: dict[str, Any], number: int, what: str) -> str:
        from mast3r_ros.ros.intake import Arrival, FrameRefused

        self.intake.take_info(messages["info"])
        if "depth" in messages:
            self.intake.take_depth(messages["depth"])
        try:
            arrival = Arrival(messages["image"], 0)
            frame = self.intake.frame(arrival, AT_ONCE, info_wait_s=0.0)
        except FrameRefused as refused:
            return f"refused: {refused.kind}"
        known = number, *_content(frame)
        if known not in self.judged:
            if len(self.judged) >= REMEMBERED:
                self.judged.clear()
            self.judged[known] = self._judged(frame, number, what)
        return self.judged[known]

    def _judged(self, frame: Frame, number: int, what: str) -> str:
        try:
            return check_pose(self.relocalizer.localize(frame), number, what)
        except Wrong:
            if "doubtful_camera_info" in self.complaints.going_on:
                return "wrong pose, but the calibration was questioned"
            raise

    def _set(self, number: int, changed: str = "") -> dict[str, Any]:
        """Good messages of a view, of the next moment; the one that will be changed is a copy in all its parts."""
        from mast3r_ros.ros import conversions

        self.stamp_ns += 10**8
        messages = {}
        for name, message in self.sets[number].items():
            messages[name] = deepcopy(message) if name == changed else copy(message)
            messages[name].header = conversions.header(message.header.frame_id, self.stamp_ns)
        return messages

    def _transform(self, rng: Rng) -> str:
        """TF: whatever is taken can be asked for, and is a rigid motion."""
        from mast3r_ros.ros import conversions

        buffer = TransformBuffer()
        for second in range(3):
            buffer.set("odom", "base_link", np.eye(4), STAMP_NS + second * 10**9)
        message = conversions.to_transform_stamped("base_link", CAMERA_FRAME, BASE_T_CAMERA, STAMP_NS)
        names = [mutate_message(rng, message) for _ in range(int(rng.integers(1, 3)))]
        taken = buffer.set_message(message, static=bool(rng.integers(2)))
        found = buffer.lookup("odom", CAMERA_FRAME, STAMP_NS)
        if not np.isfinite(found).all() or np.abs(found[:3, :3] @ found[:3, :3].T - np.eye(3)).max() > 1e-3:
            raise Wrong("TF gives what is no motion", f"{names}: {found}")
        return f"transform {'taken' if taken else 'dropped'}"

    def _prior(self, rng: Rng) -> str:
        """initialpose: guides at most, never decides."""
        from mast3r_ros.ros import conversions, priors

        number = int(rng.integers(VIEWS))
        pose = map_T_camera(number) @ se3.inverse(BASE_T_CAMERA)
        message = conversions.to_pose_with_covariance(pose, np.eye(6) * 0.25, "map", STAMP_NS)
        names = [mutate_message(rng, message) for _ in range(int(rng.integers(1, 3)))]
        prior = priors.from_message(message, "map")
        belief = PosePrior(prior.map_T_base @ BASE_T_CAMERA, prior.position_sigma_m, prior.rotation_sigma_rad)
        frame = self._frame(number)
        outcome = check_pose(self.relocalizer.localize(frame, prior=belief), number, f"initialpose: {names}")
        self.relocalizer.set_prior(belief, np.eye(4), prior.stamp_ns)
        tracked = check_pose(self.relocalizer.track(frame, np.eye(4)), number, f"initialpose on track: {names}")
        self.relocalizer.reset()
        return f"initialpose {outcome}, on track {tracked}"

    def _setting(self, rng: Rng) -> str:
        """Parameters: refused with a sentence, or lived with."""
        values = CHEAP.values()
        name = list(values)[rng.integers(len(values))]
        value = values[name]
        if isinstance(value, bool) or rng.random() < 0.1:
            value = (not value, any_text(rng), None, 3)[rng.integers(4)]
        elif isinstance(value, int):
            value = any_integer(rng, value, -(2**63), 2**63 - 1) if rng.random() < 0.5 else value + 1
        elif isinstance(value, float):
            value = any_number(rng, value)
        else:
            value = any_text(rng)
        settings = CHEAP.changed({name: value})
        number = int(rng.integers(VIEWS))
        try:
            self.relocalizer.settings = settings
            return "setting " + check_pose(self.relocalizer.localize(self._frame(number)), number, f"{name}={value!r}")
        finally:
            self.relocalizer.settings = CHEAP

    def _frame(self, number: int) -> Any:
        from mast3r_ros.ros.intake import Arrival

        messages = self._set(number)
        self.intake.take_info(messages["info"])
        return self.intake.frame(Arrival(messages["image"], 0), AT_ONCE, info_wait_s=0.0)


def _content(frame: Frame) -> tuple[Any, ...]:
    """All that an answer depends on."""
    camera, depth = frame.camera, frame.depth
    return (
        frame.image.shape,
        hash(frame.image.tobytes()),
        None if depth is None else hash(depth.tobytes()),
        None if camera is None else (camera.model, camera.width, camera.height, camera.K.tobytes(), camera.D.tobytes()),
    )


def make(folder: Path) -> Trial:
    """The campaign's trials."""
    from mast3r_ros.io import codec
    from mast3r_ros.ros import conversions, intake
    from mast3r_ros.ros.complaints import Complaints
    from mast3r_ros.ros.depth_registration import DepthRegistration

    complaints = Complaints(Silent())
    taken = intake.Intake(complaints)
    transforms = cast(Any, SimpleNamespace(lookup=TransformBuffer().lookup))  # TF without a node
    taken.registration = DepthRegistration(transforms, lambda: 0.0)
    compressed_image = vars(intake)["CompressedImage"]  # this room imports nothing of ROS itself
    made = Messages(Relocalizer(small_map(), create("fake"), CHEAP), taken, complaints)
    for number in range(VIEWS):
        image, depth = view(number)
        stamp = STAMP_NS + number * 10**9
        compressed = compressed_image(header=conversions.header(CAMERA_FRAME, stamp), format="jpeg")
        compressed.data = codec.picture_files.encode_jpeg(image, 95)
        made.sets.append(
            {
                "image": conversions.to_image(image, CAMERA_FRAME, stamp),
                "compressed": compressed,
                "info": conversions.to_camera_info(CAMERA, CAMERA_FRAME, stamp),
                "depth": conversions.to_depth_image(depth, CAMERA_FRAME, stamp),
            }
        )
    return made.trial
