"""Old import paths, for programs written against version 0.1: each still works and says where the module is now."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

#: Old name below ``mast3r_ros`` -> new one. A package stands for everything in it.
MOVED = {
    "bags": "io.bags",
    "cameras": "ros.cameras",
    "codec": "io.codec",
    "conformance": "lab.conformance",
    "datasets": "io.datasets",
    **{f"datasets.{name}": f"lab.datasets.{name}" for name in ("image_pairs", "mapfree", "ply", "query_list")},
    "evaluation.metrics": "lab.metrics",
    "evaluation.demo_output": "lab.live.output",
    "evaluation.live_summary": "lab.live.summary",
    "evaluation.negatives": "lab.stress.negatives",
    "evaluation.stress": "lab.stress.run",
    "evaluation.stress_conditions": "lab.stress.conditions",
    "evaluation.stress_report": "lab.stress.report",
    "evaluation.stress_scenes": "lab.stress.scenes",
    "evaluation.stress_summary": "lab.stress.summary",
    **{
        f"evaluation.{name}": f"lab.speed.{name}"
        for name in ("baseline", "benchmark", "known_truth", "match_recall", "network_benchmark", "plain_path")
    },
    **{
        f"evaluation.{name}": f"lab.pages.{name}"
        for name in (
            *("compare_report", "contact_sheet", "mapfree_report", "page"),
            *("pair_report", "plots", "report", "rerun_recording", "scene_view"),
        )
    },
    "evaluation": "lab.runs",
    "evaluation.match_picture": "pictures.two_images",
    "localization.draw": "pictures.matches",
    "mapping.plan_view": "pictures.plan_view",
    "mapping.tile": "lab.speed.tile",
    "io.datasets.query_list": "lab.datasets.query_list",
    "network.initialise": "lab.training.initialise",
    "ros.live": "lab.live.run",
    "ros.live_listener": "lab.live.listener",
    "ros.processes": "lab.live.processes",
    "synthetic": "lab.synthetic",
    "training": "lab.training",
}


class MovedModules(MetaPathFinder, Loader):
    """Finds modules by their old names: the same module object, under both names."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The specification of a moved module; None for every other name."""
        return ModuleSpec(fullname, self) if new_name(fullname) else None

    def exec_module(self, module: ModuleType) -> None:
        """Import the module under its new name and let the old name stand for it."""
        if module.__name__ == "mast3r_ros.evaluation":  # its modules went to several packages of the laboratory
            module.__path__ = []
            return
        new = new_name(module.__name__)
        assert new is not None
        warnings.warn(f"{module.__name__} is {new} now", DeprecationWarning, stacklevel=2)
        sys.modules[module.__name__] = importlib.import_module(new)


def new_name(fullname: str) -> str | None:
    """Where a module is now; None for one that has not moved."""
    package, _, old = fullname.partition(".")
    if package != "mast3r_ros" or not old:
        return None
    parts = old.split(".")
    for length in range(len(parts), 0, -1):
        new = MOVED.get(".".join(parts[:length]))
        if new is not None:
            return ".".join((package, new, *parts[length:]))
    return None


def install() -> None:
    """Let old names be imported in this process."""
    if not any(isinstance(finder, MovedModules) for finder in sys.meta_path):
        # Before the finder of files: it would load a second copy of a module below a moved package.
        sys.meta_path.insert(0, MovedModules())
