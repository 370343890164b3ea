"""The SROS 2 policy grants what the documentation says that the relocalizer hears, says and offers."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree


def test_the_policy_grants_what_the_relocalizer_is_documented_to_use(repository: Path) -> None:
    profile = ElementTree.parse(repository / "config/sros2/policy.xml").find(".//profile[@node='relocalizer']")
    assert profile is not None

    def granted(path: str) -> set[str]:
        return {str(element.text) for element in profile.findall(path)}

    rows = re.findall(r"^\| (in|out|both|srv) \| `/?([^`]+)` \|", (repository / "docs/ros.md").read_text(), re.M)
    heard = {name for kind, name in rows if kind in ("in", "both")}
    said = {name for kind, name in rows if kind in ("out", "both")}
    offered = {name for kind, name in rows if kind == "srv"}
    assert len(heard) > 4 and len(said) > 8 and len(offered) > 4
    mapper = {"~/coverage", "~/save_map", "~/add_keyframe"}
    assert heard <= granted("topics[@subscribe='ALLOW']/topic")
    assert said - mapper <= granted("topics[@publish='ALLOW']/topic")
    assert offered - mapper <= granted("services[@reply='ALLOW']/service")
