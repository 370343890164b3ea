"""`mast3r_ros settings`: what can be chosen, and parameter files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mast3r_ros.cli.common import note, print_json, print_table
from mast3r_ros.cli.options import JsonOption, ParamsOption, chosen_settings


def settings(
    write: Annotated[
        Path | None, typer.Option(help="Write a parameter file with every setting: for the node, and for --params.")
    ] = None,
    params: ParamsOption = None,
    json: JsonOption = False,
) -> None:
    """Say what can be chosen: every setting with its value, range and meaning.

    With --params the values are those of a file, which is checked on the way.
    """
    from mast3r_ros.settings import Settings
    from mast3r_ros.tables import settings_of

    chosen = chosen_settings(params)
    values = chosen.values()
    if write is not None:
        chosen.write(write)
        note(f"parameter file: {write}   use it: ros2 launch mast3r_ros relocalization.launch.py params_file:={write}")
    if json:
        print_json(values)
    elif write is None:
        rows = [(e.name, str(values[e.name]), e.spec.allowed, e.spec.sentence) for e in settings_of(Settings)]
        print_table("Settings", ("name", "value", "allowed", "what it does"), rows)
