"""How a network is run best, by what it is made of. The only place where its architecture decides that."""

from __future__ import annotations

from dataclasses import dataclass

from mast3r_ros.network.config import NetworkConfig

#: Sizes that networks without a stem were published for, whatever their files say.
PUBLISHED_SIZES = (224, 512)


@dataclass(frozen=True)
class NetworkTraits:
    """What follows from a network's architecture for those who run it.

    Attributes:
        size: longer side of the images that it knows, pixels.
        channels_last: it is mostly convolutions, whose heads take half the time with this layout of memory.
        short_operations: too short to be shared among threads: each thread takes pairs of its own.
        smooth_descriptors: they change little between neighbouring pixels, so every second one is searched first.
        coarse_points: see :class:`~mast3r_ros.matching.base.Capabilities`.
    """

    size: int
    channels_last: bool = False
    short_operations: bool = False
    smooth_descriptors: bool = False
    coarse_points: bool = False

    @classmethod
    def of(cls, config: NetworkConfig) -> NetworkTraits:
        """Of a small network with a convolutional stem, or of a published one, which has none."""
        trained = max(config.img_size)
        if config.stem_dim > 0:
            return cls(trained, True, True, True, True)
        return cls(trained if trained in PUBLISHED_SIZES else max(PUBLISHED_SIZES))
