"""The matchers `aliked` and `xfeat`: keypoints that a network finds, matched by a network (LightGlue).

ALIKED: Zhao et al., IEEE TIM 2023. XFeat: Potje et al., CVPR 2024. Networks: kornia (extra ``features``); weights: see
:mod:`mast3r_ros.matching.pretrained`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mast3r_ros.errors import MatcherError
from mast3r_ros.matching import pretrained
from mast3r_ros.matching.base import Capabilities, Features
from mast3r_ros.matching.device_nearest import mutual_nearest_on
from mast3r_ros.matching.hardware import device_named, dtype_named
from mast3r_ros.matching.lightglue import Keypoints, LightGlue
from mast3r_ros.matching.sparse import KeypointMatcher, Paired

#: How keypoints are paired: by the network LightGlue, or as nearest neighbours by descriptor.
PAIRINGS = ("lightglue", "nearest")
#: An image that varies by less than this (of 255) within a square of so many pixels shows nothing there.
LEAST_CONTRAST, SQUARE = 3, 9
#: Nearest / second nearest distance that nearest neighbours may have at most.
RATIO = 0.95
#: Keypoints of an image, and pixels on its longer side, where nothing else is asked for.
USUAL = 1024


class LearnedKeypointMatcher(KeypointMatcher):
    """Base of both.

    Attributes:
        device, dtype: where LightGlue runs, and what it computes in.
    """

    #: Length of a descriptor.
    width: int

    def __init__(
        self,
        max_features: int = 0,
        size: int = 0,
        pairing: str = "lightglue",
        dtype: str = "auto",
        device: str = "auto",
    ) -> None:
        """See the matchers for the arguments."""
        if pairing not in PAIRINGS:
            raise MatcherError(f"pairing '{pairing}' is not one of {', '.join(PAIRINGS)}")
        if size and not 64 <= size <= 2048:
            raise MatcherError(f"size {size} is outside 64 to 2048 pixels (0 takes what suits the matcher)")
        super().__init__(max_features or USUAL, size or USUAL)
        self.device = device_named(device)
        self.dtype = dtype_named(dtype, self.device)
        self._detector = self._made_detector()
        self._glue = LightGlue(self._made_glue(), self.device, self.dtype) if pairing == "lightglue" else None

    @property
    def signature(self) -> str:
        """Name, number of keypoints and size of the image; the pairing does not change features."""
        return f"{self.name}-{self.max_features}-{self.longest_side}-1"

    @property
    def capabilities(self) -> Capabilities:
        """Each pair goes through LightGlue on its own, so two keyframes confirm a pose that is known."""
        on_track = 2 if self._glue else 0
        return Capabilities(landmarks=True, pixel_matches=True, keyframes_on_track=on_track, upright=True)

    @property
    def _flash(self) -> bool:
        """Whether attention may be computed in half precision, as kornia does it on GPUs if it is let."""
        return self.dtype is not torch.float32

    @abstractmethod
    def _made_detector(self) -> Any:
        """Kornia's network, loaded, on the device."""

    @abstractmethod
    def _made_glue(self) -> Any:
        """Kornia's LightGlue, loaded."""

    @abstractmethod
    def _found(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Keypoints (N, 2) of an image (1, 3, H, W) in [0, 1], the strongest first, and descriptors of unit length."""

    @torch.inference_mode()
    def _detect(self, image: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float16]]:
        pixels = torch.from_numpy(np.ascontiguousarray(image)).to(self.device).permute(2, 0, 1)[None].float() / 255
        found, descriptors = self._found(pixels)
        xy = found.float().cpu().numpy()
        kept = _shows_something(image, xy)
        return xy[kept], descriptors.half().cpu().numpy()[kept]

    def _nothing(self) -> NDArray[np.float16]:
        return np.zeros((0, self.width), np.float16)

    def local_descriptors(self, features: Features) -> NDArray[np.float32]:
        """(N, D) of unit length."""
        return np.asarray(features["descriptors"], np.float32)

    def _paired(self, query: Features, references: Sequence[Features], with_points: bool) -> list[Paired]:
        """All keypoints take part, with points or without: what does not match is told from what stands beside it."""
        if self._glue is not None:
            return self._glue.pair(_keypoints(query), [_keypoints(reference) for reference in references])
        descriptors = [self.local_descriptors(reference) for reference in references]
        found = mutual_nearest_on(self.device, self.local_descriptors(query), descriptors, RATIO)
        return [Paired(i, j, 1 - ratio) for i, j, ratio in found]


class AlikedMatcher(LearnedKeypointMatcher):
    """ALIKED keypoints matched by LightGlue: wide baselines and changed light; slow on a CPU.

    Args:
        max_features: strongest keypoints kept per image; 0 takes 1024.
        size: longer side of the image that is searched, pixels; 0 takes 1024.
        pairing: ``lightglue``, or ``nearest`` for mutual nearest neighbours.
        dtype: of LightGlue: ``auto``, ``float32``, ``bfloat16``, ``float16``; ALIKED itself is float32.
        device: ``auto``, ``cpu`` or ``cuda``.
    """

    name = "aliked"
    width = 128
    #: Least score of a keypoint. NVIDIA's cuVSLAM takes this for scenes of little texture; ALIKED's own is 0.2.
    threshold = 0.005

    def _made_detector(self) -> Any:
        network = pretrained.kornia_features().ALIKED("aliked-n16rot", self.max_features, self.threshold)
        return pretrained.loaded(network, pretrained.ALIKED.read()).to(self.device)

    def _made_glue(self) -> Any:
        network = pretrained.kornia_features().LightGlue(None, input_dim=self.width, flash=self._flash)
        return pretrained.loaded(network, pretrained.ALIKED_LIGHTGLUE.read())

    def _found(self, image: Tensor) -> tuple[Tensor, Tensor]:
        network, (height, width) = self._detector, image.shape[2:]
        # Not in half precision: neighbouring scores would be equal, and then none of them is a maximum.
        features, scores = network.extract_dense_map(image)
        (places,), (strength,), _ = network.dkd(scores)
        # Without any above the threshold kornia takes those above the mean: grain of a blank wall.
        places = places[strength > self.threshold]
        if not len(places):
            return image.new_zeros(0, 2), image.new_zeros(0, self.width)
        (descriptors,), _ = network.desc_head(features, [places])
        return (places + 1) / 2 * places.new_tensor([width - 1, height - 1]), descriptors


class XfeatMatcher(LearnedKeypointMatcher):
    """XFeat keypoints matched by LighterGlue or as nearest neighbours: the fastest learned one on a CPU.

    Args:
        max_features: strongest keypoints kept per image; 0 takes 1024.
        size: longer side of the image that is searched, pixels; 0 takes 1024.
        pairing: ``lightglue``, or ``nearest`` for mutual nearest neighbours, which takes a twentieth of the time.
        dtype: of LighterGlue; XFeat itself is float32.
        device: ``auto``, ``cpu`` or ``cuda``.
    """

    name = "xfeat"
    width = 64
    #: Sides of the image that is searched are multiples of this.
    multiple = 32

    def _made_detector(self) -> Any:
        network = pretrained.kornia_features().XFeat(self.max_features)
        pretrained.loaded(network.net, pretrained.XFEAT.read())
        return network.eval().to(self.device)

    def _made_glue(self) -> Any:
        shape = {"input_dim": self.width, "descriptor_dim": 96, "n_layers": 6, "num_heads": 1}
        network = pretrained.kornia_features().LightGlue(None, **shape, flash=self._flash)
        return pretrained.loaded(network, pretrained.XFEAT_LIGHTERGLUE.read(), "matcher.")

    def _found(self, image: Tensor) -> tuple[Tensor, Tensor]:
        found = self._detector.detectAndCompute(image)[0]
        height, width = image.shape[2:]
        # Kornia scales back pixels' corners; what it found are centres.
        searched = [max(self.multiple, side // self.multiple * self.multiple) for side in (width, height)]
        by = image.new_tensor([width / searched[0], height / searched[1]])
        return found["keypoints"] + (by - 1) / 2, found["descriptors"]


def _shows_something(image: NDArray[np.uint8], xy: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which pixels (N, 2) of an RGB image have any contrast around them.

    Networks find keypoints on blank walls: where the border of the image ends what a convolution sees. They are at the
    same pixels of every blank image.
    """
    square = np.ones((SQUARE, SQUARE), np.uint8)
    contrast = (cv2.dilate(image, square) - cv2.erode(image, square)).max(axis=2)
    column, row = np.rint(xy).astype(int).T
    there: NDArray[np.uint8] = contrast[row.clip(0, image.shape[0] - 1), column.clip(0, image.shape[1] - 1)]
    return np.asarray(there >= LEAST_CONTRAST)


def _keypoints(features: Features) -> Keypoints:
    return Keypoints(features["xy"], features["descriptors"], features["size"])
