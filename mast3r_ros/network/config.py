"""One dataclass that builds every published DUSt3R and MASt3R network, and small ones for tests."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

#: Heads by name, as the official model strings call them; the last is this package's own, for small networks.
HEADS = ("linear", "dpt", "catmlp+dpt", "catconv", "catskip")
DEPTH_MODES = ("exp", "square", "linear")
CONFIDENCE_MODES = ("exp", "sigmoid")


@dataclass(frozen=True)
class Activation:
    """How a raw output becomes a value: a curve and the interval it stays in.

    Attributes:
        kind: ``exp``, ``square`` or ``linear`` for points; ``exp`` or ``sigmoid`` for confidences.
        low, high: bounds of the value; points take no finite ones.
    """

    kind: str
    low: float = -math.inf
    high: float = math.inf


@dataclass(frozen=True)
class NetworkConfig:
    """Architecture and output conventions of a network.

    Attributes:
        enc_embed_dim, enc_depth, enc_num_heads: the ViT encoder, shared by both views.
        dec_embed_dim, dec_depth, dec_num_heads: each of the two decoders.
        head_type: one of ``HEADS``; those with ``cat`` give descriptors.
        desc_dim: length of a descriptor, 0 without descriptors.
        patch_size: side of a token's patch in pixels.
        rope_base: lowest frequency of the rotary position embedding.
        img_size: (height, width) the network was trained for; no weight depends on it.
        depth, conf, desc_conf: output activations.
        stem_dim: channels of a convolutional stem and of the detail that skips the transformer to a ``catskip`` head;
            0 embeds patches linearly, as the published networks do.
        two_confs: descriptors have a confidence of their own, rather than a copy of the points'.

    Raises:
        ValueError: for values no network can be built from.
    """

    enc_embed_dim: int = 1024
    enc_depth: int = 24
    enc_num_heads: int = 16
    dec_embed_dim: int = 768
    dec_depth: int = 12
    dec_num_heads: int = 12
    head_type: str = "dpt"
    desc_dim: int = 0
    patch_size: int = 16
    rope_base: float = 100.0
    img_size: tuple[int, int] = (512, 512)
    depth: Activation = Activation("exp")
    conf: Activation = Activation("exp", 1.0)
    desc_conf: Activation = Activation("exp", 0.0)
    two_confs: bool = False
    stem_dim: int = 0

    def __post_init__(self) -> None:
        for name, low, high in _RANGES:
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} = {getattr(self, name)} is outside {low} to {high}")
        for part in ("enc", "dec"):
            dim, heads = getattr(self, f"{part}_embed_dim"), getattr(self, f"{part}_num_heads")
            if dim % (4 * heads):
                raise ValueError(f"{part}_embed_dim = {dim} must be a multiple of 4 * {part}_num_heads = {4 * heads}")
        if self.head_type not in HEADS:
            raise ValueError(f"head_type '{self.head_type}' is not one of {', '.join(HEADS)}")
        if self.has_descriptors != self.head_type.startswith("cat"):
            raise ValueError(f"head_type '{self.head_type}' does not go with desc_dim = {self.desc_dim}")
        if self.head_type.endswith("dpt") and (self.dec_depth <= 9 or self.patch_size != 16):
            raise ValueError(
                f"a DPT head needs dec_depth > 9 and patch_size 16, not {self.dec_depth}, {self.patch_size}"
            )
        if (self.stem_dim > 0) != (self.head_type == "catskip") or self.stem_dim % 2:
            raise ValueError(f"head_type '{self.head_type}' does not go with stem_dim = {self.stem_dim}")
        if self.stem_dim and (self.patch_size != 16 or not self.two_confs):
            raise ValueError("a convolutional stem needs patch_size 16 and two_confs")
        if self.patch_size % 2:
            raise ValueError(f"patch_size = {self.patch_size} must be even")
        if self.depth.kind not in DEPTH_MODES or not (math.isinf(self.depth.low) and math.isinf(self.depth.high)):
            raise ValueError(f"depth activation {self.depth} is not an unbounded one of {', '.join(DEPTH_MODES)}")
        for activation in (self.conf, self.desc_conf):
            if activation.kind not in CONFIDENCE_MODES or not -math.inf < activation.low < activation.high:
                raise ValueError(f"confidence activation {activation} needs a lower bound and {CONFIDENCE_MODES}")

    @property
    def has_descriptors(self) -> bool:
        """Whether the network gives a descriptor per pixel (MASt3R) beside its point (DUSt3R)."""
        return self.desc_dim > 0

    def to_json(self) -> dict[str, Any]:
        """Plain values for strict JSON: infinities are the strings ``inf`` and ``-inf``."""
        values = asdict(self)
        for name in ("depth", "conf", "desc_conf"):
            values[name] = {key: str(v) if v in (math.inf, -math.inf) else v for key, v in values[name].items()}
        return values | {"img_size": list(self.img_size)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> NetworkConfig:
        """Inverse of :meth:`to_json`.

        Raises:
            ValueError, TypeError: for unknown names or unusable values.
        """
        known = {field.name: field.type for field in fields(cls)}
        if unknown := set(values) - set(known):
            raise ValueError(f"unknown setting {', '.join(sorted(unknown))}")
        typed = {name: _typed(name, known[name], value) for name, value in values.items()}
        return cls(**typed)


#: Sizes outside these are damage or malice, not architectures: a config must not decide how much memory is taken.
_RANGES = (
    ("enc_embed_dim", 4, 4096),
    ("enc_depth", 1, 64),
    ("enc_num_heads", 1, 64),
    ("dec_embed_dim", 4, 4096),
    ("dec_depth", 1, 64),
    ("dec_num_heads", 1, 64),
    ("patch_size", 2, 64),
    ("desc_dim", 0, 512),
    ("stem_dim", 0, 512),
    ("rope_base", 1.0, 1e6),
)


def _typed(name: str, kind: Any, value: Any) -> Any:
    """A JSON value as the type of the field it is meant for."""
    if kind == "Activation":
        return Activation(str(value["kind"]), float(value["low"]), float(value["high"]))
    if name == "img_size":
        height, width = value
        return int(height), int(width)
    expected: Any = {"int": int, "float": (int, float), "bool": bool, "str": str}[kind]
    if not isinstance(value, expected) or (isinstance(value, bool) and kind != "bool"):
        raise ValueError(f"{name} = {value!r} should be of type {kind}")
    return value


_DUST3R_512_DPT = NetworkConfig()

#: The networks whose weights are published, by the name of their checkpoint.
PUBLISHED: dict[str, NetworkConfig] = {
    "DUSt3R_ViTLarge_BaseDecoder_224_linear": replace(_DUST3R_512_DPT, head_type="linear", img_size=(224, 224)),
    "DUSt3R_ViTLarge_BaseDecoder_512_linear": replace(_DUST3R_512_DPT, head_type="linear"),
    "DUSt3R_ViTLarge_BaseDecoder_512_dpt": _DUST3R_512_DPT,
    "MASt3R_ViTLarge_BaseDecoder_512_catmlpdpt_metric": replace(
        _DUST3R_512_DPT, head_type="catmlp+dpt", desc_dim=24, two_confs=True
    ),
}
