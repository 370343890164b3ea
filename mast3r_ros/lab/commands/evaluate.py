"""`mast3r_ros evaluate`: how well does localization work on data whose truth is known?

One sub-command for each kind of data. With --json all but cloud and reconstruct print one object with at least
queries, answered, wrong_accepted, median_translation_error_m, median_rotation_error_deg and recall.
"""

from __future__ import annotations

import typer

from mast3r_ros.lab.commands import (
    evaluate_bag,
    evaluate_cloud,
    evaluate_compare,
    evaluate_mapfree,
    evaluate_pairs,
    evaluate_photos,
    evaluate_queries,
    evaluate_reconstruct,
    evaluate_scenes,
    evaluate_stress,
    evaluate_worlds,
)

app = typer.Typer(help="Measure accuracy on data whose truth is known.", no_args_is_help=True)
app.command("sevenscenes")(evaluate_scenes.scene)
app.command("twelvescenes")(evaluate_scenes.scene)
app.command()(evaluate_scenes.tum)
app.command()(evaluate_mapfree.mapfree)
app.command()(evaluate_pairs.pairs)
app.command()(evaluate_photos.photos)
app.command()(evaluate_queries.queries)
app.command()(evaluate_cloud.cloud)
app.command()(evaluate_reconstruct.reconstruct)
app.command()(evaluate_bag.bag)
app.command()(evaluate_compare.compare)
app.command()(evaluate_stress.stress)
app.command()(evaluate_worlds.worlds)


@app.callback()
def evaluate() -> None:
    """Measure accuracy on data whose truth is known."""
