#!/usr/bin/env python3
"""Print install_requires of setup.py with every floor turned into a pin, one a line: what the humble environment gets.

floors.py [NAME]    only that requirement
floors.py --without NAME
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path


def floors(setup: Path) -> dict[str, str]:
    """Name -> version of every ``name>=version`` in install_requires."""
    tree = ast.parse(setup.read_text())
    (listed,) = (
        k.value for n in ast.walk(tree) if isinstance(n, ast.Call) for k in n.keywords if k.arg == "install_requires"
    )
    return dict(requirement.split(">=") for requirement in ast.literal_eval(listed))


def main() -> None:
    """Print the pins."""
    pins = floors(Path(__file__).resolve().parents[1] / "setup.py")
    if sys.argv[1:2] == ["--without"]:
        del pins[sys.argv[2]]
    elif sys.argv[1:]:
        pins = {sys.argv[1]: pins[sys.argv[1]]}
    print("\n".join(f"{name}=={version}" for name, version in pins.items()))


if __name__ == "__main__":
    main()
