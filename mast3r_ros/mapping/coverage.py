"""Where would relocalization fail? Frames are tried against the map as a robot would on another day."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mast3r_ros.frames import PosedFrame
from mast3r_ros.geometry import se3
from mast3r_ros.localization.localizer import Localizer, LocalizerSettings
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.matching.base import Matcher
