"""`mast3r_ros matcher check`: whether a matcher keeps the contract."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from mast3r_ros.cli.common import print_json, print_table
from mast3r_ros.cli.options import (
    CheckpointOption,
    DeviceOption,
    DtypeOption,
    FeatureOption,
    JsonOption,
    NetworkSizeOption,
)


def check(
    name: Annotated[str, typer.Argument(help="A matcher of 'mast3r_ros matcher list'.")],
    feature: FeatureOption = None,
    checkpoint: CheckpointOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    network_size: NetworkSizeOption = None,
    json: JsonOption = False,
) -> None:
    """Check that a matcher keeps the contract: features, cache, matches, points, odd images, capabilities.

    For authors of matchers. It runs on generated pictures of a wall; exit code 1 says that something is not kept.
    """
    from mast3r_ros.lab.conformance import check_by_name

    findings = check_by_name(name, **_given(feature, checkpoint, device, dtype, network_size))
    kept = all(finding.passed for finding in findings)
    if json:
        print_json({"matcher": name, "passed": kept, "findings": [asdict(finding) for finding in findings]})
    else:
        rows = [(f.name, "ok" if f.passed else "FAULT", f.sentence) for f in findings]
        print_table(f"Matcher {name}", ("check", "", "what was found"), rows)
    if not kept:
        raise typer.Exit(1)


def _given(
    feature: str | None, checkpoint: Path | None, device: str | None, dtype: str | None, size: int | None
) -> dict[str, Any]:
    """The options that were given."""
    options = {"feature": feature, "checkpoint": checkpoint, "device": device, "dtype": dtype, "size": size}
    return {option: value for option, value in options.items() if value is not None}
