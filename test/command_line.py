"""The command line in this process."""

from __future__ import annotations

from typer.testing import CliRunner


def separate_runner() -> CliRunner:
    """Keeps standard error apart from standard output; since click 8.2 every runner does."""
    try:
        return CliRunner(mix_stderr=False)  # type: ignore[call-arg]
    except TypeError:
        return CliRunner()
