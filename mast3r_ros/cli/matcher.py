"""`mast3r_ros matcher`: which matchers there are."""

from __future__ import annotations

import typer

from mast3r_ros.cli.common import print_json, print_table
from mast3r_ros.cli.options import JsonOption

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
