"""`mast3r_ros evaluate reconstruct`: photos without poses and depth against the truth, beside COLMAP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mast3r_ros.cli.common import print_json, print_table, stages
from mast3r_ros.cli.options import JsonOption


def reconstruct(
    path: Annotated[Path, typer.Argument(help="Any posed data set with one calibration; poses and depth are hidden.")],
    features: Annotated[int, typer.Option(min=200, help="Features of an image.")] = 4000,
    neighbours: Annotated[int, typer.Option(min=2, help="Images that each is matched with.")] = 12,
    mapper: Annotated[str, typer.Option(help="own or pycolmap.")] = "own",
    calibrated: Annotated[bool, typer.Option(help="Tell the calibration.")] = True,
    colmap: Annotated[bool, typer.Option(help="Also COLMAP alone, on the same images.")] = True,
    step: Annotated[int, typer.Option(min=1, help="Take every so many-th frame.")] = 1,
    most: Annotated[int, typer.Option(min=0, help="Take at most so many; 0 for all.")] = 0,
    json: JsonOption = False,
) -> None:
    """Reconstruct photos with SIFT alone and compare with their poses after a similarity."""
    from mast3r_ros.lab.runs.reconstruct import evaluate_reconstruction
    from mast3r_ros.matching.sift import SiftMatcher
    from mast3r_ros.multiview.reconstruct import ReconstructSettings

    with stages() as show:
        found = evaluate_reconstruction(
            path,
            SiftMatcher(max_features=features, longest_side=2000),
            ReconstructSettings(neighbours, mapper=mapper),
            show,
            calibrated=calibrated,
            colmap=colmap,
            step=step,
            most=most,
        )
    if json:
        print_json({"set": str(path), **found})
        return
    names = list(next(iter(found.values())))
    rows = [(name, *(_text(figures.get(name)) for figures in found.values())) for name in names]
    print_table(str(path), ("", *found), rows)


def _text(value: Any) -> str:
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
