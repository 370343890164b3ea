"""`mast3r_ros map`: key, sign, verify; added to the commands of `map`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mast3r_ros.cli.common import note
from mast3r_ros.cli.map import MapArgument
from mast3r_ros.cli.map_files import app as app

KeyOption = Annotated[Path, typer.Option("--key", "-k", help="File of the key.")]


@app.command()
def key(private: Annotated[Path, typer.Argument(help="File of the private key; the public one gets .pub.")]) -> None:
    """Make a pair of keys: the private one signs maps, robots have the public one."""
    from mast3r_ros.mapping.signature import make_keys

    print(make_keys(private))


@app.command()
def sign(map: MapArgument, key: KeyOption) -> None:
    """Sign a map with a private key: what it says and every picture in it."""
    from mast3r_ros.mapping.signature import sign as sign_map

    sign_map(map.expanduser().resolve(), key)
    note(f"signed; robots check it by `mast3r_ros map verify {map} --key PUBLIC`, or the parameter map_key")


@app.command()
def verify(
    map: MapArgument,
    key: KeyOption,
    drop_caches: Annotated[
        bool, typer.Option("--drop-caches", help="Remove features and indexes, which nobody signs; they are made anew.")
    ] = False,
) -> None:
    """Check that a map is what the owner of a public key has signed; exit code 1 where it is not."""
    from mast3r_ros.mapping.signature import verify as verify_map

    verify_map(map.expanduser().resolve(), key, drop_caches=drop_caches)
    print(f"{map}: signed by the owner of {key}")
