"""What this package writes: how each old state is made and read, and how it becomes the new one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from mast3r_ros.frames import Frame, PosedFrame
from mast3r_ros.io.bags import BagWriter, open_bag
from mast3r_ros.lab.endure.scene import CAMERA, STAMP_NS, map_T_camera, small_map, view
from mast3r_ros.lab.training.initialise import random_network
from mast3r_ros.lab.training.state import Averaged, load_state, save_state
from mast3r_ros.localization import prune
from mast3r_ros.localization.map_noise import save_ready
from mast3r_ros.localization.merge import write_merged
from mast3r_ros.localization.placement import place
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.mapping.repair import repair
from mast3r_ros.mapping.rescale import rescale
from mast3r_ros.mapping.storage import read_header
from mast3r_ros.matching import create
from mast3r_ros.network.checkpoint import load_model, save_network
from mast3r_ros.network.config import NetworkConfig

#: Keyframes of the old map; messages of the old recording; steps of the old training.
OLD, NEW = 3, 5


@dataclass(frozen=True)
class Job:
    """Something that is written.

    Attributes:
        begin: makes the old state in an empty folder.
        write: makes the new state of it.
        state: reads the state in a folder to its end: ``old`` or ``new``; fails where it is neither.
    """

    name: str
    begin: Callable[[Path], None]
    write: Callable[[Path], None]
    state: Callable[[Path], str]


def _old_or_new(found: float, old: float, new: float) -> str:
    if found not in (old, new):
        raise AssertionError(f"{found} is neither {old} nor {new}")
    return "new" if found == new else "old"


def _begin_map(folder: Path) -> None:
    keyframes = small_map(OLD)
    keyframes.prepare(create("fake"))
    keyframes.save(folder / "map")


def _read_map(folder: Path) -> KeyframeMap:
    """Every pixel, and features that are those of the pixels."""
    keyframes, matcher = KeyframeMap.load(folder / "map"), create("fake")
    keyframes.prepare(matcher)
    for keyframe in keyframes.keyframes:
        described, kept = matcher.describe(keyframes.frame(keyframe.id)), keyframes.features(matcher, keyframe.id)
        if not np.array_equal(described["thumbnail"], kept["thumbnail"]):
            raise AssertionError(f"features of {keyframe.id} are of another picture")
    return keyframes


def _grow_map(folder: Path) -> None:
    keyframes = KeyframeMap.load(folder / "map")
    for number in range(len(keyframes), NEW):
        image, depth = view(number)
        keyframes.add(PosedFrame(Frame(image, CAMERA, number, depth), map_T_camera(number)), f"k{number}")
    keyframes.prepare(create("fake"))
    keyframes.save(folder / "map")


def _map_state(folder: Path) -> str:
    return _old_or_new(len(_read_map(folder)), OLD, NEW)


def _begin_edited(folder: Path) -> None:
    """A map of one more keyframe whose image is gone: a repair drops it."""
    small_map(NEW).save(folder / "map")
    (folder / "map" / "images" / "k0.jpg").unlink()


def _repair(folder: Path) -> None:
    repair(folder / "map")


def _edited_state(folder: Path) -> str:
    read_header(folder / "map")  # brings back what a swap without an end left under another name
    lines = (folder / "map" / "keyframes.jsonl").read_bytes().count(b"\n")
    if _old_or_new(lines, NEW, NEW - 1) == "new":
        _read_map(folder)
    return "new" if lines == NEW - 1 else "old"


def _scale_once(folder: Path) -> None:
    if KeyframeMap.load(folder / "map")["k1"].map_T_camera[0, 3] < 1:
        rescale(folder / "map", folder / "map", 2.0, "told")


def _scale_state(folder: Path) -> str:
    known = map_T_camera(1)[0, 3]
    return _old_or_new(round(float(_read_map(folder)["k1"].map_T_camera[0, 3]) / known), 1, 2)


def _begin_two(folder: Path) -> None:
    small_map(NEW).save(folder / "map")
    small_map(NEW + 1).save(folder / "second")


def _merge(folder: Path) -> None:
    """As `map merge` does, into the first map's own place."""
    matcher, first = create("fake"), KeyframeMap.load(folder / "map")
    if len(first) == NEW:
        second = KeyframeMap.load(folder / "second")
        write_merged(first, second, place(first, second, matcher), folder / "map")
    save_ready(KeyframeMap.load(folder / "map"), matcher, folder / "map")


def _merged_state(folder: Path) -> str:
    if len(KeyframeMap.load(folder / "second")) != NEW + 1:
        raise AssertionError("the second map was changed")
    return _old_or_new(len(_read_map(folder)), NEW, 2 * NEW + 1)


def _begin_long(folder: Path) -> None:
    small_map(NEW).save(folder / "map")


def _prune(folder: Path) -> None:
    """As `map prune --drop` does, in place."""
    keyframes, matcher = KeyframeMap.load(folder / "map"), create("fake")
    if len(keyframes) == NEW:
        prune.write_pruned(keyframes, prune.drop(keyframes, ["k1"]), folder / "map")
    save_ready(KeyframeMap.load(folder / "map"), matcher, folder / "map")


def _pruned_state(folder: Path) -> str:
    keyframes = _read_map(folder)
    if "k0" not in [keyframe.id for keyframe in keyframes.keyframes]:
        raise AssertionError("another keyframe is gone")
    return _old_or_new(len(keyframes), NEW, NEW - 1)


def _begin_bare(folder: Path) -> None:
    small_map(OLD).save(folder / "map")


def _describe(folder: Path) -> None:
    KeyframeMap.load(folder / "map").prepare(create("fake"))


def _described_state(folder: Path) -> str:
    made = len(list((folder / "map" / "features" / "fake-1").glob("[!.]*.safetensors")))
    if made > OLD:
        raise AssertionError(f"{made} files of features")
    index = (folder / "map" / "retrieval").is_dir() and any((folder / "map" / "retrieval").glob("[!.]*"))
    keyframes = KeyframeMap.load(folder / "map")
    matcher = create("fake")
    for keyframe in keyframes.keyframes:
        keyframes.features(matcher, keyframe.id)
    return "new" if index else "old"


class _Training:
    def __init__(self) -> None:
        torch.manual_seed(0)
        self.network, self.criterion = nn.Linear(40, 40), nn.Linear(2, 2)
        self.average = Averaged(self.network, 0.9)
        parameters = [*self.network.parameters(), *self.criterion.parameters()]
        self.optimiser = torch.optim.AdamW(parameters, fused=False)

    def save(self, path: Path, step: int) -> None:
        with torch.no_grad():
            self.network.weight.fill_(step)
        save_state(path, step, self.network, self.criterion, self.average, self.optimiser, {})

    def step(self, path: Path) -> int:
        record = load_state(path, self.network, self.criterion, self.average, self.optimiser)
        if not bool((self.network.weight == record["step"]).all()):
            raise AssertionError("weights of another step")
        return int(record["step"])


def _write_checkpoint(folder: Path, seed: int) -> None:
    network = random_network(NetworkConfig(8, 1, 1, 8, 1, 1, "linear"), seed)
    save_network(network, folder / "network.safetensors", torch.float32)


def _checkpoint_state(folder: Path) -> str:
    loaded = load_model(folder / "network.safetensors").state_dict()
    for seed, name in ((OLD, "old"), (NEW, "new")):
        made = random_network(NetworkConfig(8, 1, 1, 8, 1, 1, "linear"), seed).state_dict()
        if all(torch.equal(loaded[key], value) for key, value in made.items()):
            return name
    raise AssertionError("weights of neither network")


def _write_bag(folder: Path, messages: int) -> None:
    with BagWriter(folder / "result.mcap", overwrite=True) as bag:
        for number in range(messages):
            bag.image("/image", view(number)[0], STAMP_NS + number, "camera")


def _bag_state(folder: Path) -> str:
    with open_bag(folder / "result.mcap", strict=True) as bag:
        return _old_or_new(sum(1 for _ in bag.messages()), OLD, NEW)


JOBS = (
    Job("map save", _begin_map, _grow_map, _map_state),
    Job("map repair", _begin_edited, _repair, _edited_state),
    Job("map scale", _begin_map, _scale_once, _scale_state),
    Job("map merge", _begin_two, _merge, _merged_state),
    Job("map prune", _begin_long, _prune, _pruned_state),
    Job("features", _begin_bare, _describe, _described_state),
    Job(
        "training",
        lambda folder: _Training().save(folder / "state.safetensors", OLD),
        lambda folder: _Training().save(folder / "state.safetensors", NEW),
        lambda folder: _old_or_new(_Training().step(folder / "state.safetensors"), OLD, NEW),
    ),
    Job(
        "checkpoint",
        lambda folder: _write_checkpoint(folder, OLD),
        lambda folder: _write_checkpoint(folder, NEW),
        _checkpoint_state,
    ),
    Job("result bag", lambda folder: _write_bag(folder, OLD), lambda folder: _write_bag(folder, NEW), _bag_state),
)
