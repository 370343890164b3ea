"""`mast3r_ros matcher`: which matchers there are, and whether one keeps the contract."""

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

app = typer.Typer(help="The matchers that can be used here, and checks of one of them.", no_args_is_help=True)


@app.command("list")
def list_matchers(json: JsonOption = False) -> None:
    """List the matchers: those of the package, and those that installed packages bring."""
    from mast3r_ros.errors import MatcherError
    from mast3r_ros.matching.registry import available, factory_of, provider

    rows = []
    for name in available():
        try:
            usable, what = True, (factory_of(name).__doc__ or "").strip().split("\n")[0]
        except MatcherError as error:
            usable, what = False, str(error)
        rows.append((name, provider(name), usable, what))
    if json:
        print_json([dict(zip(("matcher", "from", "usable", "what"), row, strict=True)) for row in rows])
        return
    print_table("Matchers", ("matcher", "from", "what it is"), [(name, source, what) for name, source, _, what in rows])


@app.command("check")
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
    from mast3r_ros.conformance import check_by_name

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
