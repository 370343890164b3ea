"""DUSt3R and MASt3R: two views in, pointmaps of both in the first camera's frame out (torch only).

DUSt3R: Wang et al., CVPR 2024. MASt3R: Leroy et al., ECCV 2024. Built on CroCo v2: Weinzaepfel et al., ICCV 2023.
"""

from mast3r_ros.network.config import PUBLISHED, NetworkConfig
from mast3r_ros.network.model import PointmapNetwork, Tokens, ViewPrediction

__all__ = ["PUBLISHED", "NetworkConfig", "PointmapNetwork", "Tokens", "ViewPrediction"]
