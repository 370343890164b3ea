"""YAML of anybody: plain values, and no nest so deep that a parser written in C ends the whole process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

#: Levels that a document may have. Parsers call themselves for each one: tens of thousands end the process.
DEEPEST = 100
#: libyaml's parser, where PyYAML was built with it: twenty times as fast.
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_yaml(text: str | bytes) -> Any:
    """The one document of a text.

    Raises:
        yaml.YAMLError: for what is no YAML, is nested too deep, or asks for more than plain values.
    """
    _check_depth(text)
    return yaml.load(text, Loader=LOADER)


def read_documents(text: str | bytes) -> Iterator[Any]:
    """Every document of a text. Raises as :func:`read_yaml`."""
    _check_depth(text)
    return yaml.load_all(text, Loader=LOADER)


def _check_depth(text: str | bytes) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > DEEPEST:
            raise yaml.YAMLError(f"it is nested more than {DEEPEST} levels deep")
