"""The command `mast3r_ros`: sub-commands, exit codes, and errors as sentences.

Exit codes: 0 done, 1 the job failed (the message says why and what to do), 2 wrong usage.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Annotated

import typer

from mast3r_ros import __version__
from mast3r_ros.cli import bag, checkpoint, localize, map_sign, matcher, predict, reconstruct, settings
from mast3r_ros.cli.common import DEBUG_VARIABLE, messages
from mast3r_ros.errors import UserError, as_run_here, missing_module
from mast3r_ros.lab.commands import benchmark, demo, endure, evaluate, matcher_check, replay, train
from mast3r_ros.waiting_threads import use_passive_waiting

# Only light modules may be imported above: torch and OpenCV are loaded by the commands that need them.

app = typer.Typer(
    help="Visual relocalization: the metric pose of a camera in a map of keyframes.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("demo")(demo.demo)
app.add_typer(map_sign.app, name="map")
app.command("reconstruct")(reconstruct.reconstruct)
app.add_typer(bag.app, name="bag")
app.command("localize")(localize.localize)
app.command("replay")(replay.replay)
app.command("settings")(settings.settings)
app.add_typer(evaluate.app, name="evaluate")
app.command("predict")(predict.predict)
app.command("match")(predict.match)
matcher.app.command("check")(matcher_check.check)
app.add_typer(matcher.app, name="matcher")
app.add_typer(checkpoint.app, name="checkpoint")
app.command("train")(train.train)
app.add_typer(benchmark.app, name="benchmark")
app.add_typer(endure.app, name="endure")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"mast3r_ros {__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[
        bool, typer.Option("--debug", envvar=DEBUG_VARIABLE, help="Log everything; show tracebacks of errors.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options of all sub-commands."""
    if debug:
        os.environ[DEBUG_VARIABLE] = "1"
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Sentence())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("mast3r_ros").setLevel(logging.DEBUG if debug else logging.INFO)


class _Sentence(logging.Formatter):
    """Log records begin as the commands' own sentences do: ``warning: ...``."""

    def format(self, record: logging.LogRecord) -> str:
        return f"{record.levelname.lower()}: {super().format(record)}"


def main() -> None:
    """Entry point."""
    use_passive_waiting()
    try:
        app()
    except BrokenPipeError:  # the reader of our output has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except UserError as error:
        _fail(as_run_here(str(error)))
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error))
    except ModuleNotFoundError as error:
        _fail(missing_module(error))
    except Exception as error:  # the user gets a sentence, not a traceback
        _fail(f"this is a defect, please report it: {type(error).__name__}: {error} (--debug shows where)")


def _fail(sentence: str) -> None:
    """Say what went wrong and exit 1; with --debug the traceback comes first."""
    if os.environ.get(DEBUG_VARIABLE, "0") not in ("", "0", "false"):
        messages.print_exception()
    messages.print(f"error: {sentence}", style="red", markup=False, highlight=False, soft_wrap=True)
    sys.exit(1)


if __name__ == "__main__":
    main()
