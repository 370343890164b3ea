"""From 16 bits to 8, in the same way for all images of a recording."""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import NDArray

log = logging.getLogger(__name__)

#: Bits that sensors fill, in images of 16.
SENSOR_BITS = (8, 10, 12, 14, 16)
#: Share of the pixels at either end that do not count: dead and hot ones.
OUTLIERS = 0.001
#: Values that lie in fewer than this many of 256 equal steps cannot be told apart in 8 bits: thermal cameras.
FEWEST_STEPS = 8
#: The range is chosen anew when more than this share of an image is outside of it.
MOST_OUTSIDE = 0.05


class EightBits:
    """Makes 8 bits of 16-bit images; the range is chosen at the first image and then kept.

    A camera of 10, 12 or 14 bits fills the lower ones: its values are shifted so that the highest bit of the sensor
    becomes that of the image. A thermal camera uses a small part of its range: that part is spread over the 8 bits. An
    image that leaves the range widens it, which is told: brightness must not jump unnoticed.
    """

    def __init__(self) -> None:
        self._low, self._high = 0.0, 0.0

    def __call__(self, raw: NDArray[np.uint16]) -> NDArray[np.uint8]:
        """Values of any shape -> the same shape in 8 bits."""
        if self._high == 0 or np.mean((raw < self._low) | (raw >= self._high)) > MOST_OUTSIDE:
            self._choose(raw)
        if self._low == 0:
            shown: NDArray[np.uint8] = np.minimum(raw >> (int(self._high).bit_length() - 9), 255).astype(np.uint8)
            return shown
        spread = (raw.astype(np.float32) - self._low) * (256 / (self._high - self._low))
        return np.clip(spread, 0, 255).astype(np.uint8)

    def _choose(self, raw: NDArray[np.uint16]) -> None:
        """Set the range [low, high) so that this image, and those before it, lie inside."""
        bottom, top = (float(value) for value in np.quantile(raw, [OUTLIERS, 1 - OUTLIERS]))
        before = (self._low, self._high)
        if before[1]:
            bottom, top = min(bottom, before[0]), max(top, before[1] - 1)
        self._low, self._high = 0.0, float(2 ** next((bits for bits in SENSOR_BITS if top < 2**bits), 16))
        spread = top - bottom
        if 0 < spread < self._high / 256 * FEWEST_STEPS and self._high > 256:
            self._low, self._high = max(bottom - spread / 2, 1.0), top + spread / 2 + 1
            log.warning(
                "16-bit images use the values %.0f to %.0f alone, as thermal cameras do: %.0f to %.0f become 8 bits",
                bottom,
                top,
                self._low,
                self._high,
            )
        elif before[1]:
            log.warning("16-bit images became brighter than the first one: values up to %.0f now", self._high)
        elif self._high < 2**16:
            log.info("16-bit images hold %d bits", int(self._high).bit_length() - 1)
