"""Matchers by name: those of the package, those of installed third parties, and those registered by hand."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, cast

from mast3r_ros.errors import MatcherError, UserError
from mast3r_ros.matching import measured, pretrained
from mast3r_ros.matching.base import Matcher
from mast3r_ros.network.shipped import shipped_checkpoint, weights_digest
from mast3r_ros.settings import MatcherSettings

logger = logging.getLogger(__name__)

#: Group of entry points by which an installed package brings matchers: their names and the classes.
ENTRY_POINTS = "mast3r_ros.matchers"

Factory = Callable[..., Matcher]

#: Modules and classes of this package. They are imported when they are asked for: PyTorch, without which sift works,
#: takes seconds.
_OWN = {
    "aliked": ("learned_keypoints", "AlikedMatcher"),
    "dust3r": ("dust3r", "Dust3rMatcher"),
    "fake": ("fake", "FakeMatcher"),
    "mast3r": ("mast3r", "Mast3rMatcher"),
    "sift": ("sift", "SiftMatcher"),
    "xfeat": ("learned_keypoints", "XfeatMatcher"),
}
#: Those registered by hand, which come before all others of their name.
_FACTORIES: dict[str, Factory] = {}


def register(name: str) -> Callable[[Factory], Factory]:
    """Class decorator: make a matcher available as ``matcher: name`` everywhere in this process.

    Installed packages name theirs by an entry point of the group ``mast3r_ros.matchers`` instead, and need no import.
    """

    def add(factory: Factory) -> Factory:
        _FACTORIES[name] = factory
        return factory

    return add


def available() -> list[str]:
    """Names of all matchers, those of installed packages included, which are not loaded for that."""
    return sorted({*_FACTORIES, *_OWN, *_installed()})


def provider(name: str) -> str:
    """Where a matcher comes from, for people: this package, this process, or the name and version of another package.

    Raises:
        MatcherError: for an unknown name.
    """
    if _is_own(_FACTORIES[name]) if name in _FACTORIES else name in _OWN:
        return "mast3r_ros"
    if name in _FACTORIES and name not in _installed():
        return "this process"
    package = _entry_point(name).dist
    return f"{package.name} {package.version}" if package is not None else "an entry point"


def factory_of(name: str) -> Factory:
    """The class of a matcher. One of another package is loaded now, and a fault in it is no fault of any other.

    Raises:
        MatcherError: for an unknown name, or a package that cannot be loaded.
    """
    if name in _FACTORIES:
        return _FACTORIES[name]
    if name in _OWN:
        module, own = _OWN[name]
        return cast(Factory, getattr(import_module(f"mast3r_ros.matching.{module}"), own))
    point = _entry_point(name)
    try:
        factory: Factory = point.load()
    except Exception as error:  # whatever a stranger's import raises
        raise MatcherError(
            f"matcher '{name}' of {provider(name)} cannot be loaded from {point.value} "
            f"({type(error).__name__}: {error}): mend or uninstall that package; other matchers work as before"
        ) from error
    if not callable(factory):
        raise MatcherError(
            f"matcher '{name}' of {provider(name)}: {point.value} is {type(factory).__name__}, not a class of matchers"
        )
    return factory


def create(name: str, **options: Any) -> Matcher:
    """Build a matcher.

    Args:
        name: of :func:`available`, or ``auto`` for the best that can run here.
        options: settings of that matcher, e.g. ``feature="orb"`` for ``sift``. With ``auto`` those that only other
            matchers have are left out.

    Raises:
        MatcherError: for an unknown name, a third party's package that cannot be loaded, or options the matcher does
            not have.
        CheckpointError: for a checkpoint that cannot be used.
    """
    if name == "auto":
        wanted = {key: options[key] for key in ("device", "max_latency_ms") if key in options}
        name, why = best_matcher(options.get("checkpoint") or "", **wanted)
        options = matcher_options(name, options)
        logger.info("matcher auto takes %s: %s", name, why)
    factory = factory_of(name)
    try:
        inspect.signature(factory).bind(**options)
    except TypeError as error:
        raise MatcherError(f"matcher '{name}' does not take these options ({error})") from error
    try:
        return factory(**options)
    except Exception as error:
        if isinstance(error, UserError) or _is_own(factory):
            raise  # a TypeError in there is a fault of its own
        raise MatcherError(
            f"matcher '{name}' of {provider(name)} cannot be made ({type(error).__name__}: {error}): ask its authors"
        ) from error


def from_settings(settings: MatcherSettings) -> Matcher:
    """Build the matcher that the settings name, with those of their options that it has.

    Raises:
        MatcherError: for an unknown name.
        CheckpointError: for a checkpoint that cannot be used.
    """
    return create(settings.matcher, **matcher_options(settings.matcher, settings.options()))


def best_matcher(
    checkpoint: Any = "", device: str = "auto", max_latency_ms: float = MatcherSettings.max_latency_ms
) -> tuple[str, str]:
    """Name of the best matcher that can run here, and why.

    A checkpoint that is given is taken. Else measurements decide, see :func:`mast3r_ros.matching.measured.choose`.

    Raises:
        CheckpointError: for a checkpoint that cannot be used.
        MatcherError: for a device that is not there.
    """
    if checkpoint:
        from mast3r_ros.network.checkpoint import read_config

        if read_config(checkpoint).has_descriptors:
            return "mast3r", f"{checkpoint} is a MASt3R network"
        return "dust3r", f"{checkpoint} is a DUSt3R network, without descriptors"
    try:
        table = measured.read_table()
    except MatcherError as error:
        return measured.FALLBACK, str(error)
    from mast3r_ros.matching.hardware import device_named

    return measured.choose(table, usable_here(), device_named(device).type, max_latency_ms)


def usable_here() -> dict[str, str]:
    """Own matchers that need nothing which is missing here, with the digest of their weights."""
    usable = {"sift": ""}
    if shipped_checkpoint() is not None:
        usable["mast3r"] = weights_digest()
    for name, weights in (("aliked", pretrained.ALIKED), ("xfeat", pretrained.XFEAT)):
        if pretrained.is_installed(weights):
            usable[name] = weights.sha256
    return usable


def matcher_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the options that a matcher has; all of them for ``auto``.

    Raises:
        MatcherError: as :func:`factory_of`.
    """
    if name == "auto":
        return dict(options)
    known = inspect.signature(factory_of(name)).parameters
    return {option: value for option, value in options.items() if option in known}


def _installed() -> dict[str, EntryPoint]:
    """Entry points of installed packages by name; of two with one name the first on the path."""
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=ENTRY_POINTS):
        found.setdefault(point.name, point)
    return found


def _is_own(factory: Factory) -> bool:
    return factory.__module__.startswith("mast3r_ros.")


def _entry_point(name: str) -> EntryPoint:
    installed = _installed()
    if name not in installed:
        raise MatcherError(f"unknown matcher '{name}': choose one of auto, {', '.join(available())}")
    return installed[name]
