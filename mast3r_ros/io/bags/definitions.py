"""Message types as a recording defines them, or, where it does not or is damaged there, the standard ones."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from rosbags.interfaces import MessageDefinition, MessageDefinitionFormat
from rosbags.typesys import Stores, TypesysError, get_types_from_idl, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

#: Definitions for bags that carry none (ROS 2 before Iron); those of standard messages have not changed since.
DEFAULT_TYPES = Stores.ROS2_JAZZY


@lru_cache(maxsize=64)
def typestore(msgtype: str, definition: MessageDefinition) -> Typestore | None:
    """Types as the bag defines them (a message may have changed since), or the standard ones; None if nobody does.

    Definitions are what stands in a file: one in which a standard message lacks a field is damaged, and who reads
    that field would fail.
    """
    try:
        if definition.format == MessageDefinitionFormat.NONE:
            return _known(_standard(DEFAULT_TYPES), msgtype)
        store = get_typestore(Stores.EMPTY)
        if definition.data.startswith("=" * 80 + "\nIDL: "):
            for part in definition.data.split("=" * 80 + "\n")[1:]:
                store.register(get_types_from_idl(part.split("\n", 1)[1]))
        else:
            store.register(get_types_from_msg(definition.data, msgtype))
        if not _is_whole(store, msgtype):
            return _known(_standard(DEFAULT_TYPES), msgtype)
        return _known(store, msgtype)
    except (TypesysError, KeyError, IndexError, RecursionError):
        return _known(_standard(DEFAULT_TYPES), msgtype)


@lru_cache(maxsize=2)
def _standard(stores: Stores) -> Typestore:
    return get_typestore(stores)


def _known(store: Typestore, msgtype: str) -> Typestore | None:
    return store if msgtype in store.fielddefs else None


def _is_whole(store: Typestore, msgtype: str) -> bool:
    """Whether a standard message has all the fields that ROS 2, or ROS 1, gives it; others are as they are."""
    standards = [_standard(name) for name in (DEFAULT_TYPES, Stores.ROS1_NOETIC)]
    standards = [standard for standard in standards if msgtype in standard.fielddefs]
    return not standards or any(_covers(store, standard, msgtype) for standard in standards)


def _covers(store: Typestore, standard: Typestore, msgtype: str) -> bool:
    fields = dict(store.fielddefs[msgtype][1]) if msgtype in store.fielddefs else {}
    return all(
        name in fields
        and set(_nested(kind)) == set(_nested(fields[name]))
        and all(_covers(store, standard, inner) for inner in _nested(kind) if inner in standard.fielddefs)
        for name, kind in standard.fielddefs[msgtype][1]
    )


def _nested(kind: Any) -> Iterator[str]:
    """The names of types in the description of a field: of a message, of a number, of what a sequence holds."""
    for part in kind if isinstance(kind, tuple) else ():
        if isinstance(part, str):
            yield part
        else:
            yield from _nested(part)
