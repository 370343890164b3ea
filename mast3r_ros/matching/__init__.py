"""Where a query sees what a keyframe saw: the Matcher contract and the matchers that keep it."""

from mast3r_ros.matching import dust3r, fake, learned_keypoints, mast3r, sift  # noqa: F401  # importing registers them
from mast3r_ros.matching.base import Capabilities, Features, Matcher, Matches
from mast3r_ros.matching.reciprocal import fast_reciprocal_matches
from mast3r_ros.matching.registry import available, create, from_settings, register

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
