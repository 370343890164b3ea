"""`mast3r_ros evaluate cloud`: a reconstructed cloud against a true one."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mast3r_ros.cli.common import note, print_facts, print_json
from mast3r_ros.cli.options import JsonOption

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def cloud(
    estimate: Annotated[Path, typer.Argument(help="Reconstructed cloud (PLY).")],
    truth: Annotated[Path, typer.Argument(help="True cloud (PLY), in the same frame and unit.")],
    threshold: Annotated[
        float | None, typer.Option(min=0, help="Also precision, recall and F-score at this distance.")
    ] = None,
    max_distance: Annotated[
        float | None, typer.Option(min=0, help="Leave points further away out of the means; DTU: 20 (mm).")
    ] = None,
    spacing: Annotated[
        float | None, typer.Option(min=0, help="Thin the reconstruction to one point in each cube; DTU: 0.2 (mm).")
    ] = None,
    mask: Annotated[
        Path | None, typer.Option(help="DTU: ObsMask<scan>_10.mat, the volume the reconstruction is judged in.")
    ] = None,
    plane: Annotated[Path | None, typer.Option(help="DTU: Plane<scan>.mat, the table under the true cloud.")] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write the judged points as PLY, from violet (exact) to yellow (worst)."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Accuracy, completeness and Chamfer distance of a cloud, in the unit of the files.

    DTU: --spacing 0.2 --max-distance 20 --mask ObsMask1_10.mat --plane Plane1.mat
    """
    from mast3r_ros.errors import DatasetError
    from mast3r_ros.lab.datasets.ply import read_ply
    from mast3r_ros.lab.runs.cloud import ObservedVolume, cloud_summary, compare_clouds, read_plane, thinned

    clouds = [read_ply(path) for path in (estimate, truth)]
    for path, points in zip((estimate, truth), clouds, strict=True):
        if not len(points):
            raise DatasetError(f"{path} holds no finite point")
    if spacing:
        clouds[0] = thinned(clouds[0], spacing)
    distances, judged, asked = compare_clouds(
        *clouds,
        max_distance=math.inf if max_distance is None else max_distance,
        observed=None if mask is None else ObservedVolume.read(mask),
        plane=None if plane is None else read_plane(plane),
    )
    settings = {"estimate": estimate, "truth": truth, "max_distance": max_distance, "spacing": spacing}
    settings |= {"mask": mask, "plane": plane}
    summary = {**cloud_summary(distances, judged, asked, threshold), "settings": settings}
    if output is not None:
        _write_coloured(output, judged, distances.to_truth)
        note(f"coloured by error: {output}")
    print_json(summary) if json else _print_people(summary)


def _write_coloured(path: Path, points: NDArray[np.float64], errors: NDArray[np.float64]) -> None:
    """Points coloured by their error, up to the 95th percentile."""
    import numpy as np
    from matplotlib import colormaps

    from mast3r_ros.mapping.export import write_ply

    known = errors[np.isfinite(errors)]
    worst = max(float(np.percentile(known, 95)), 1e-12) if known.size else 1.0
    colours = colormaps["viridis"](np.clip(errors / worst, 0, 1), bytes=True)[:, :3]
    write_ply(path, points.astype(np.float32), colours)


def _print_people(summary: dict[str, Any]) -> None:
    facts: dict[str, Any] = {"points": f"{summary['points']} reconstructed, {summary['true_points']} true"}
    for name in ("accuracy", "completeness", "chamfer", "precision", "recall", "f_score"):
        if name in summary:
            low, high = summary.get(f"{name}_interval", (math.nan, math.nan))
            facts[name.replace("_", "-")] = f"{summary[name]:.4g}  ({low:.4g} to {high:.4g})"
    facts["medians"] = f"{summary['median_accuracy']:.4g} accuracy, {summary['median_completeness']:.4g} completeness"
    facts["left out"] = f"{summary['left_out']:.1%} of the reconstruction, {summary['true_left_out']:.1%} of the truth"
    print_facts("Cloud: distances in the unit of the files, with 95 % intervals", facts)
