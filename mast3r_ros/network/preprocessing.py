"""Images as the networks want them: resized, cropped, in [-1, 1], and the way back to the original pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from mast3r_ros.errors import CodecError
from mast3r_ros.io.codec.image_files import load_image
from mast3r_ros.network.resampling import resized

__all__ = ["NetworkImage", "load_image", "normalised", "prepare", "prepare_for_localization", "training_resolution"]

#: Filters of Pillow; before 9.1, which some robots have, their names are in the module itself.
FILTERS = getattr(Image, "Resampling", Image)

#: Width and height, in landscape, of the images the 512-pixel networks were trained with.
TRAINING_RESOLUTIONS = ((512, 384), (512, 336), (512, 288), (512, 256), (512, 160))


@dataclass(frozen=True, eq=False)
class NetworkImage:
    """An image at network size and how it lies in the original.

    Attributes:
        tensor: (1, 3, H, W) float32 in [-1, 1], where it was prepared.
        original_size: (height, width) of the image as it was.
        original_T_input: (3, 3), from pixels of the network image to pixels of the original. Acts on coordinates
            whose origin is the *corner* of the first pixel; :meth:`to_original` takes pixel centres at integers.
    """

    tensor: Tensor
    original_size: tuple[int, int]
    original_T_input: NDArray[np.float64]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the network image."""
        return int(self.tensor.shape[2]), int(self.tensor.shape[3])

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """The network image (H, W, 3) as RGB."""
        image = (self.tensor[0].permute(1, 2, 0) + 1) * 127.5
        return image.round().clamp(0, 255).byte().cpu().numpy()

    def to_original(self, xy: NDArray[Any]) -> NDArray[np.float64]:
        """Pixels (N, 2) of the network image -> pixels of the original, centres at integers in both."""
        return moved_pixels(self.original_T_input, xy)


def prepare(
    image: NDArray[np.uint8],
    size: int = 512,
    square_ok: bool = False,
    patch_size: int = 16,
    device: torch.device | None = None,
) -> NetworkImage:
    """Resize the long side to ``size`` and crop the centre to multiples of the patch size, as the reference does.

    Args:
        image: (H, W, 3) uint8 RGB.
        size: of the long side in pixels; 224 stands for 224 x 224 (short side resized, centre square).
        square_ok: leave square images square; otherwise they lose rows to become 4:3.
        device: where to resize; on a GPU the pixels are the same.

    Raises:
        CodecError: for images so long and thin that a side is shorter than a patch.
    """
    height, width = image.shape[:2]
    long_side = round(224 * max(width / height, height / width)) if size == 224 else size
    scale = long_side / max(width, height)
    resized_width, resized_height = round(width * scale), round(height * scale)
    half_width, half_height = _half_crop(resized_width, resized_height, size, square_ok, patch_size)
    if min(half_width, half_height) == 0:
        raise CodecError(
            f"an image of {width}x{height} pixels is too long and thin for a network of size {size}: crop it first"
        )
    centre_x, centre_y = resized_width // 2, resized_height // 2
    left, top = round(centre_x - half_width), round(centre_y - half_height)
    box = (left, top, round(centre_x + half_width), round(centre_y + half_height))
    kernel = "lanczos" if max(width, height) > long_side else "bicubic"
    tensor = _resized_and_cropped(image, (resized_width, resized_height), kernel, box, device)
    original_T_input = np.diag([width / resized_width, height / resized_height, 1]) @ _translation(left, top)
    return NetworkImage(tensor, (height, width), original_T_input)


def _resized_and_cropped(
    image: NDArray[np.uint8],
    size: tuple[int, int],
    kernel: str,
    box: tuple[int, int, int, int],
    device: torch.device | None,
) -> Tensor:
    """Normalised (1, 3, H, W) of a window (left, top, right, bottom) of the image resized to (width, height)."""
    left, top, right, bottom = box
    if device is None or device.type == "cpu":
        whole = Image.fromarray(image).resize(size, getattr(FILTERS, kernel.upper()))
        return normalised(np.asarray(whole.crop(box)))
    pixels = _uploaded(image, device).permute(2, 0, 1).float()
    return _in_range(resized(pixels, size[1], size[0], kernel)[None, :, top:bottom, left:right])


def _half_crop(width: int, height: int, size: int, square_ok: bool, patch_size: int) -> tuple[float, float]:
    """Half the width and height of the centre crop of a resized image."""
    centre_x, centre_y = width // 2, height // 2
    if size == 224:
        return min(centre_x, centre_y), min(centre_x, centre_y)
    half_width = 2 * centre_x // patch_size * patch_size / 2
    half_height = 2 * centre_y // patch_size * patch_size / 2
    if width == height and not square_ok:
        half_patch = patch_size / 2  # three quarters of some sizes are no whole number of patches
        half_height = 3 * half_width / 4 // half_patch * half_patch
    return half_width, half_height


def prepare_for_localization(
    image: NDArray[np.uint8], size: int = 512, reference_offsets: bool = False, device: torch.device | None = None
) -> NetworkImage:
    """Crop to the aspect ratio of the closest training resolution and resize to exactly that, antialiased.

    Args:
        image: (H, W, 3) uint8 RGB.
        size: of the network, 512 or 224.
        reference_offsets: the published code rounds the crop's offset but stores it unrounded, half a pixel off
            when the difference is odd; True reproduces that in ``original_T_input``.
        device: where to resize; values differ by 2e-5 at most.
    """
    height, width = image.shape[:2]
    target_height, target_width = training_resolution(height, width, size)
    if (height, width) == (target_height, target_width):
        return NetworkImage(normalised(image, device), (height, width), np.eye(3))
    ratio = target_width / target_height
    crop_width, crop_height = width, height
    if abs(width / height - ratio) >= np.finfo(np.float32).eps:
        if width / height < ratio:
            crop_height = int(width / ratio)
        else:
            crop_width = int(height * ratio)
    offset_x, offset_y = (width - crop_width) / 2, (height - crop_height) / 2
    left, top = round(offset_x), round(offset_y)
    tensor = F.interpolate(
        normalised(image[top : top + crop_height, left : left + crop_width], device),
        size=(target_height, target_width),
        mode="bilinear",
        align_corners=False,
        antialias=True,
    )
    offset = (offset_x, offset_y) if reference_offsets else (left, top)
    scale = np.diag([crop_width / target_width, crop_height / target_height, 1])
    return NetworkImage(tensor, (height, width), _translation(*offset) @ scale)


def training_resolution(height: int, width: int, size: int = 512) -> tuple[int, int]:
    """(height, width) of the training resolution whose aspect ratio is closest to an image's.

    Raises:
        ValueError: for a size that no published network was trained with.
    """
    if size not in (224, 512):
        raise ValueError(f"there are no training resolutions of size {size}, only of 224 and 512")
    candidates = ((224, 224),) if size == 224 else TRAINING_RESOLUTIONS
    if width >= height:
        long, short = min(candidates, key=lambda c: abs(width / height - c[0] / c[1]))
        return short, long
    long, short = min(candidates, key=lambda c: abs(width / height - c[1] / c[0]))
    return long, short


def normalised(pixels: NDArray[np.uint8], device: torch.device | None = None) -> Tensor:
    """(H, W, 3) uint8 RGB -> (1, 3, H, W) float32 in [-1, 1], on the CPU or another device."""
    if device is None or device.type == "cpu":
        return _in_range(torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))[None].float())
    return _in_range(_uploaded(pixels, device).permute(2, 0, 1)[None].contiguous().float())


def _in_range(levels: Tensor) -> Tensor:
    """0 to 255 -> -1 to 1."""
    return levels.div(255).sub(0.5).div(0.5)


def _uploaded(pixels: NDArray[np.uint8], device: torch.device) -> Tensor:
    """The pixels as they are on a device, by one copy that nobody waits for."""
    raw = torch.from_numpy(np.ascontiguousarray(pixels))
    return (raw.pin_memory() if device.type == "cuda" else raw).to(device, non_blocking=True)


def _translation(x: float, y: float) -> NDArray[np.float64]:
    return np.array([[1.0, 0, x], [0, 1, y], [0, 0, 1]])


def moved_pixels(T: NDArray[Any], xy: NDArray[Any]) -> NDArray[np.float64]:
    """Apply an affine (3, 3) on corner-origin coordinates to pixels (N, 2) whose centres are integers."""
    centre = T[:2, :2].sum(axis=1) / 2 + T[:2, 2] - 0.5  # of the first pixel
    moved: NDArray[np.float64] = np.asarray(xy, dtype=np.float64) @ T[:2, :2].T + centre
    return moved
