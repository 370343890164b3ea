"""Writes what can be derived from the nodes' parameter tables: config/*.yaml and the tables in docs/ros.md.

Run it after a parameter table was changed; a test compares.
"""

from __future__ import annotations

import re
from pathlib import Path

from mast3r_ros.ros.bag_player import BagPlayerParameters
from mast3r_ros.ros.mapper_parameters import MapperParameters
from mast3r_ros.settings import Settings
from mast3r_ros.tables import as_markdown, as_yaml

REPOSITORY = Path(__file__).resolve().parents[1]
TABLES = {"relocalizer": Settings, "mapper": MapperParameters, "bag_player": BagPlayerParameters}
#: Nodes whose fixed parameters can be changed again, after a cleanup.
MANAGED = ("relocalizer",)
HEAD = """\
# Every parameter of the {node}, with its default. Copy this file, keep what you change, and start with
#   ros2 launch mast3r_ros {launch} params_file:=my_{node}.yaml
# Written by scripts/ros_reference.py from the node's parameter table.
/**:
  ros__parameters:
"""
LAUNCH = {"relocalizer": "relocalization.launch.py", "mapper": "mapping.launch.py"}


def files() -> dict[Path, str]:
    """Every derived file and what should be in it."""
    made = {
        REPOSITORY / "config" / f"{node}.yaml": HEAD.format(node=node, launch=launch) + as_yaml(TABLES[node]) + "\n"
        for node, launch in LAUNCH.items()
    }
    page = REPOSITORY / "docs" / "ros.md"
    text = page.read_text()
    for node, table in TABLES.items():
        begin, end = f"<!-- parameters of {node} -->", f"<!-- end of parameters of {node} -->"
        rows = as_markdown(table, managed=node in MANAGED)
        text = re.sub(f"{begin}.*{end}", lambda _, b=begin, r=rows, e=end: f"{b}\n{r}\n{e}", text, flags=re.DOTALL)
    made[page] = text
    return made


if __name__ == "__main__":
    for path, content in files().items():
        path.write_text(content)
        print(f"wrote {path.relative_to(REPOSITORY)}")
