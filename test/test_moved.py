"""Old import paths lead to the modules' new places, and say so."""

from __future__ import annotations

import importlib.util
import sys

import pytest

from mast3r_ros.moved import MOVED, new_name


@pytest.mark.parametrize("old", [name for name in MOVED if name not in ("evaluation", "ros.live", "ros.live_listener")])
def test_every_old_path_names_a_module_that_exists(old: str) -> None:
    new = new_name(f"mast3r_ros.{old}")
    assert new is not None
    assert importlib.util.find_spec(new) is not None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("mast3r_ros.datasets.query_list", "mast3r_ros.lab.datasets.query_list"),
        ("mast3r_ros.bags", "mast3r_ros.io.bags"),
        ("mast3r_ros.evaluation.metrics.risk", "mast3r_ros.lab.metrics.risk"),
    ],
)
def test_an_old_path_is_the_same_module_and_warns(old: str, new: str) -> None:
    for name in [name for name in sys.modules if name == old or (old.startswith(f"{name}.") and new_name(name))]:
        del sys.modules[name]
    with pytest.warns(DeprecationWarning, match=f"{old} is {new} now"):
        module = importlib.import_module(old)
    assert module is importlib.import_module(new)


def test_names_that_did_not_move_are_left_alone() -> None:
    assert new_name("mast3r_ros.matching.sift") is None
    assert new_name("numpy") is None
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("mast3r_ros.evaluation.never_existed")


def test_a_constant_that_follows_the_scene_now_is_still_found() -> None:
    with pytest.warns(DeprecationWarning, match="usual_noise"):
        from mast3r_ros.localization.verification import USUAL_NOISE
    assert USUAL_NOISE.position_m == pytest.approx(0.01)
