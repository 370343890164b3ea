"""Where a query sees what a keyframe saw: the Matcher contract and the matchers that keep it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mast3r_ros.matching.base import Capabilities, Features, Matcher, Matches
from mast3r_ros.matching.registry import available, create, from_settings, register

if TYPE_CHECKING:
    from mast3r_ros.matching.reciprocal import fast_reciprocal_matches

__all__ = [
    "Capabilities",
    "Features",
    "Matcher",
    "Matches",
    "available",
    "create",
    "fast_reciprocal_matches",
    "from_settings",
    "register",
]


def __getattr__(name: str) -> Any:
    # PyTorch, which the search for descriptors of networks needs, takes seconds to import.
    if name == "fast_reciprocal_matches":
        return import_module("mast3r_ros.matching.reciprocal").fast_reciprocal_matches
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
