"""DUSt3R and MASt3R: two views in, pointmaps of both in the first camera's frame out (torch only).

DUSt3R: Wang et al., CVPR 2024. MASt3R: Leroy et al., ECCV 2024. Built on CroCo v2: Weinzaepfel et al., ICCV 2023.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mast3r_ros.network.config import PUBLISHED, NetworkConfig

if TYPE_CHECKING:
    from mast3r_ros.network.model import PointmapNetwork, Tokens, ViewPrediction

__all__ = ["PUBLISHED", "NetworkConfig", "PointmapNetwork", "Tokens", "ViewPrediction"]


def __getattr__(name: str) -> Any:
    # PyTorch takes seconds to import, and whether there are weights is asked without it.
    if name in __all__:
        return getattr(import_module("mast3r_ros.network.model"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
