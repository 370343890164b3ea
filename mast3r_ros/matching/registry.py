"""Matchers by name."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from typing import Any

from mast3r_ros.errors import MatcherError
from mast3r_ros.matching.base import Matcher
from mast3r_ros.network.checkpoint import read_config
from mast3r_ros.network.shipped import better_than_sift, shipped_checkpoint
from mast3r_ros.settings import MatcherSettings

logger = logging.getLogger(__name__)

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
        options: settings of that matcher, e.g. ``feature="orb"`` for ``sift``. With ``auto`` those that only other
            matchers have are left out.

    Raises:
        MatcherError: for an unknown name or options the matcher does not have.
        CheckpointError: for a checkpoint that cannot be used.
    """
    if name == "auto":
        name, why = best_matcher(options.get("checkpoint") or "")
        options = matcher_options(name, options)
        logger.info("matcher auto takes %s: %s", name, why)
    if name not in _FACTORIES:
        raise MatcherError(f"unknown matcher '{name}': choose one of auto, {', '.join(available())}")
    factory = _FACTORIES[name]
    try:
        inspect.signature(factory).bind(**options)
    except TypeError as error:
        raise MatcherError(f"matcher '{name}' does not take these options ({error})") from error
    return factory(**options)  # a TypeError in there is a fault of its own


def from_settings(settings: MatcherSettings) -> Matcher:
    """Build the matcher that the settings name, with those of their options that it has.

    Raises:
        MatcherError: for an unknown name.
        CheckpointError: for a checkpoint that cannot be used.
    """
    return create(settings.matcher, **matcher_options(settings.matcher, settings.options()))


def best_matcher(checkpoint: Any = "") -> tuple[str, str]:
    """Name of the best matcher that can run here, and why.

    A checkpoint that is given is taken. The network of the package is taken where it measured better than sift on
    real images, see :func:`mast3r_ros.network.shipped.better_than_sift`.

    Raises:
        CheckpointError: for a checkpoint that cannot be used.
    """
    if not checkpoint:
        if shipped_checkpoint() is None:
            return "sift", "no checkpoint of a network is given"
        better, why = better_than_sift()
        return ("mast3r" if better else "sift"), why
    if read_config(checkpoint).has_descriptors:
        return "mast3r", f"{checkpoint} is a MASt3R network"
    return "dust3r", f"{checkpoint} is a DUSt3R network, without descriptors"


def matcher_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the options that a matcher has; all of them for ``auto`` and for unknown names."""
    if name not in _FACTORIES:
        return dict(options)
    known = inspect.signature(_FACTORIES[name]).parameters
    return {option: value for option, value in options.items() if option in known}
