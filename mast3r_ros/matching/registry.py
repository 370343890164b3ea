"""Matchers by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mast3r_ros.errors import MatcherError
from mast3r_ros.matching.base import Matcher

_FACTORIES: dict[str, Callable[..., Matcher]] = {}


def register(name: str) -> Callable[[Callable[..., Matcher]], Callable[..., Matcher]]:
    """Class decorator: make a matcher available as ``matcher: name`` everywhere."""

    def add(factory: Callable[..., Matcher]) -> Callable[..., Matcher]:
        _FACTORIES[name] = factory
        return factory

    return add


def available() -> list[str]:
    """Names of all registered matchers."""
    return sorted(_FACTORIES)


def create(name: str, **options: Any) -> Matcher:
    """Build a matcher.

    Args:
        name: a registered name, or ``auto`` for the best that can run here.
        options: settings of that matcher, e.g. ``feature="orb"`` for ``sift``.

    Raises:
        MatcherError: for an unknown name or options the matcher does not have.
    """
    if name == "auto":
        name = "sift"
    if name not in _FACTORIES:
        raise MatcherError(f"unknown matcher '{name}': choose one of auto, {', '.join(available())}")
    try:
        return _FACTORIES[name](**options)
    except TypeError as error:
        raise MatcherError(f"matcher '{name}' does not take these options ({error})") from error
