"""Options that several commands of the laboratory share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import typer

from mast3r_ros.cli.options import (
    DEFAULTS,
    CheckpointOption,
    CompileOption,
    DeviceOption,
    DtypeOption,
    FeatureOption,
    MatcherOptions,
    NetworkSizeOption,
)

if TYPE_CHECKING:
    from mast3r_ros.matching.base import Matcher

DEFAULT_KEYFRAMES = DEFAULTS.localizer.keyframes
#: Keyframes where no parameter file is taken.
KeyframesCount = Annotated[
    int, typer.Option("--keyframes", "-k", min=1, max=200, help="Keyframes matched with every query.")
]


@dataclass(frozen=True)
class ComparedMatchers:
    """Several matchers, and how they are made."""

    matcher: Annotated[
        list[str],
        typer.Option("--matcher", help="sift, aliked, xfeat, mast3r, dust3r or auto; give it again to compare."),
    ] = field(default_factory=lambda: ["auto"])
    feature: FeatureOption = None
    checkpoint: CheckpointOption = None
    device: DeviceOption = None
    dtype: DtypeOption = None
    network_size: NetworkSizeOption = None
    compile_network: CompileOption = None

    def make(self) -> list[Matcher]:
        """Each matcher once, with those of the options that it has. Raises as :meth:`MatcherOptions.make`."""
        return [
            MatcherOptions(
                name,
                self.feature if name in ("sift", "auto") else None,
                self.checkpoint if name not in ("sift", "aliked", "xfeat") else None,
                *(self.device, self.dtype, self.network_size, self.compile_network),
            ).make()
            for name in dict.fromkeys(self.matcher)
        ]
