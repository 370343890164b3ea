"""Imports go one way: each room only from the rooms below it, and no module in a circle."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.smoke

#: From the bottom to the top; docs/architecture.md draws them. A room imports from those before it.
ROOMS = (
    *(
        "errors",
        "moved",
        "waiting_threads",
        "memory",
        "workers",
        "plain_yaml",
        "tables",
        "node_settings",
        "settings",
        "geometry",
        "frames",
        "registration",
        "surface",
    ),
    *("transforms", "io.documents", "io.codec", "io.bags", "io.datasets", "network"),
    *("matching", "mapping", "multiview", "localization", "pipeline", "pictures", "ros"),
    *("cli.options", "cli.common", "cli.cameras", "cli.source"),
    *("lab.metrics", "lab.datasets", "lab.synthetic", "lab.training", "lab.runs", "lab.pages", "lab.speed"),
    *("lab.stress", "lab.live", "lab.conformance", "lab.endure", "lab.commands", "cli"),
)
#: Only these rooms talk to ROS 2.
ROS_ROOMS = ("ros", "lab.live")
ROS = re.compile(r"(rclpy|launch|launch_ros|tf2_ros|ament_index_python|\w+_(msgs|srvs|interfaces))(\.|$)")


def modules(repository: Path) -> dict[str, Path]:
    """Every module of the package by its name below ``mast3r_ros``."""
    root = repository / "mast3r_ros"
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(part for part in parts if part != "__init__")] = path
    return found


def room(module: str) -> str | None:
    """The room that a module is in; None for the package itself and its empty folders."""
    return next((r for r in ROOMS if module == r or module.startswith(f"{r}.")), None)


def imports(path: Path, known: dict[str, Path]) -> Iterator[str]:
    """Modules of this package that a file imports anywhere in it, for type checkers too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("mast3r_ros"):
            continue
        base = (node.module or "").removeprefix("mast3r_ros").strip(".")
        for alias in node.names:
            child = f"{base}.{alias.name}".strip(".")
            yield child if child in known else base


@pytest.fixture(scope="module")
def graph(repository: Path) -> dict[str, set[str]]:
    """Who imports whom."""
    known = modules(repository)
    return {name: set(imports(path, known)) - {name, ""} for name, path in known.items() if name}


def test_every_module_is_in_a_room(graph: dict[str, set[str]]) -> None:
    outside = {name for name in graph if room(name) is None} - {"io", "lab"}
    assert not outside, f"these belong to no room of docs/architecture.md: {sorted(outside)}"


def test_rooms_import_only_from_rooms_below(graph: dict[str, set[str]]) -> None:
    upward = []
    for name, targets in graph.items():
        here = room(name)
        for target in targets:
            there = room(target)
            if here and there and ROOMS.index(there) > ROOMS.index(here):
                upward.append(f"{name} imports {target}")
    assert not upward, "\n".join(sorted(upward))


def test_no_module_is_in_a_circle(graph: dict[str, set[str]]) -> None:
    def reaches(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = list(graph[start])
        while waiting:
            name = waiting.pop()
            if name not in seen and name in graph:
                seen.add(name)
                waiting.extend(graph[name])
        return seen

    circles = sorted(name for name in graph if name in reaches(name))
    assert not circles, f"these modules import each other: {circles}"


def test_only_the_rooms_for_ros_import_ros(repository: Path) -> None:
    for name, path in modules(repository).items():
        if room(name) in ROS_ROOMS:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and node.level == 0 else []
            found = [n for n in names if ROS.match(n)]
            assert not found, f"{path} imports {found}: only {', '.join(ROS_ROOMS)} may"


def test_the_product_never_imports_the_laboratory(graph: dict[str, set[str]]) -> None:
    """The door is the command line's main module, and no other."""
    for name, targets in graph.items():
        if not name.startswith("lab") and name != "cli.main":
            found = sorted(target for target in targets if target.startswith("lab"))
            assert not found, f"{name} imports {found}"


def test_functions_and_files_are_not_too_long(repository: Path) -> None:
    """At most 60 lines for a function and 400 for a file, in product and laboratory alike."""
    too_long = []
    for path in modules(repository).values():
        text = path.read_text()
        lines = len(text.splitlines())
        if lines > 400:
            too_long.append(f"{path}: {lines} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > 60:
                    too_long.append(f"{path}:{node.lineno}: {node.name} has {lines} lines")
    assert not too_long, "\n".join(too_long)


def test_everything_public_in_the_product_says_what_it_does(repository: Path) -> None:
    def undocumented(parent: ast.AST, name: str) -> Iterator[str]:
        for node in ast.iter_child_nodes(parent):
            if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) or node.name[0] == "_":
                continue
            if any(ast.unparse(decorator).endswith(("overload", ".setter")) for decorator in node.decorator_list):
                continue
            if not ast.get_docstring(node):
                yield f"{name}.{node.name}"
            if isinstance(node, ast.ClassDef):
                yield from undocumented(node, f"{name}.{node.name}")

    found = []
    for name, path in modules(repository).items():
        tree = ast.parse(path.read_text())
        if not name.startswith("lab"):
            found += [name] if tree.body and not ast.get_docstring(tree) else []
            found += undocumented(tree, name)
    assert not found, f"these have no docstring: {found}"
