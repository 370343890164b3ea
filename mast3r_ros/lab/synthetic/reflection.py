"""Second looks: what a ray meets after a mirror turned it, or after it went through a pane of glass.

One bounce only: a mirror seen in a mirror shows its own grey.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mast3r_ros.lab.synthetic.raycast import Shapes, intersect

#: Primitives intersected at once with all rays.
CHUNK = 16


def mirrored(direction: Tensor, normal: Tensor) -> Tensor:
    """Directions (N, 3) after reflection at surfaces with unit normals (N, 3) of either sign; lengths are kept."""
    return direction - 2 * (direction * normal).sum(dim=1, keepdim=True) * normal


def nearest(shapes: Shapes, index: Tensor, origin: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """First hits of free rays, which share no camera.

    Args:
        index: (P,) primitives to look at; -1 fills up.
        origin, direction: (N, 3) map frame, metres.

    Returns:
        Ray parameter (N,), infinite where nothing is hit, and primitive (N,), -1 there.
    """
    found = torch.full_like(origin[:, 0], torch.inf)
    seen = torch.full(found.shape, -1, dtype=torch.int64, device=origin.device)
    for part in index[index >= 0].split(CHUNK):
        unit = shapes.unit_A[part]
        t = intersect(shapes.kind[part], unit @ direction.T, unit @ origin.T + shapes.unit_b[part][:, :, None])
        best, which = t.min(dim=0)
        seen = torch.where(best < found, part[which], seen)
        found = torch.minimum(best, found)
    return found, seen
