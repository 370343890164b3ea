"""What SECURITY.md says that the product never does, and what the SROS 2 policy grants."""

from __future__ import annotations

import ast
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from mast3r_ros import plain_yaml

#: Modules that can run what is in a file.
RUN_WHAT_THEY_READ = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
USE_THE_NETWORK = {"urllib", "http", "socket", "ssl", "ftplib", "requests", "httpx", "aiohttp"}


def product(repository: Path) -> Iterator[tuple[str, ast.AST]]:
    """Every node of every product module, with the module's path in the package. The laboratory reads its own files."""
    root = repository / "mast3r_ros"
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root).as_posix()
        if not name.startswith("lab/"):
            yield from ((name, node) for node in ast.walk(ast.parse(path.read_text())))


def test_the_product_has_nothing_that_runs_what_it_reads_and_one_door_to_the_network(repository: Path) -> None:
    found = set()
    for name, node in product(repository):
        if isinstance(node, ast.Import):
            found |= {(name, alias.name.split(".")[0]) for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add((name, str(node.module).split(".")[0]))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            found.add((name, f"{node.func.id}()"))
    assert len({name for name, _ in found}) > 200
    # Workers are sent their task by the process that started them: what it wrote itself, and nobody else.
    runs = {(name, what) for name, what in found if what in RUN_WHAT_THEY_READ | {"eval()", "exec()"}}
    assert runs == {("workers.py", "pickle")}
    assert {name for name, what in found if what in USE_THE_NETWORK} == {"network/download.py"}


def test_every_reader_is_told_to_run_nothing(repository: Path) -> None:
    readers = []
    for name, node in product(repository):
        if not isinstance(node, ast.Call):
            continue
        call, given = ast.unparse(node.func), {str(k.arg): ast.unparse(k.value) for k in node.keywords}
        if call.endswith("torch.load"):
            assert given.get("weights_only") == "True", name
            readers.append(name)
        elif call in ("yaml.load", "yaml.load_all"):
            assert (name, given["Loader"]) == ("plain_yaml.py", "LOADER")
        elif call.startswith("yaml."):
            assert "unsafe" not in call and "full_load" not in call, name
        elif call in ("np.load", "numpy.load"):
            assert given.get("allow_pickle", "False") == "False", name
        assert not call.endswith(("faiss.read_index", "faiss.deserialize_index")), name
    assert sorted(readers) == ["matching/pretrained.py", "network/legacy.py"]
    assert issubclass(plain_yaml.LOADER, yaml.constructor.SafeConstructor)


def test_a_recording_cannot_have_a_module_imported_that_has_no_messages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("rclpy", reason="needs ROS 2")
    from sensor_msgs.msg import Image

    from mast3r_ros.ros.bag_player import message_class

    (tmp_path / "has_effects").mkdir()
    (tmp_path / "has_effects" / "__init__.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("has_effects/msg/X", "has_effects.sub/msg/X", "../x/msg/X", "/msg/X", "no_such/msg/X"):
        assert message_class(name) is None
    assert "has_effects" not in sys.modules
    assert message_class("sensor_msgs/msg/Image") is Image
    assert message_class("sensor_msgs/msg/__doc__") is None


def test_an_audit_tells_what_is_vulnerable_and_what_it_knows_nothing_about(repository: Path) -> None:
    audit = runpy.run_path(str(repository / "scripts" / "audit.py"))
    vulnerable = {"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": ["2.0"]}
    document = [
        {"name": "safe", "version": "1.0", "vulns": []},
        {"name": "broken", "version": "1.9", "vulns": [vulnerable, vulnerable | {"fix_versions": []}]},
        {"name": "elsewhere", "skip_reason": "not found"},
    ]
    found, known, unknown = audit["report"]({"dependencies": document})
    assert found[0] == "broken 1.9: PYSEC-1 (CVE-1), mended in 2.0" and found[1].endswith("mended in no version yet")
    assert known == ["safe 1.0", "broken 1.9"] and unknown == ["elsewhere"]
    pinned = "".join((repository / name).read_text() for name in audit["FILES"])
    assert all(f"\n{name}" in pinned for name in ("numpy==", "torch==", "kornia==", "pytest==", "ruff=="))


@pytest.mark.parametrize("node", ["relocalizer", "mapper"])
def test_the_policy_grants_what_the_node_uses_and_no_more(node: str, repository: Path, tmp_path: Path) -> None:
    """DDS refuses an endpoint that is not granted, and the node does not start; more is open to who takes it over."""
    for package in ("rclpy", "bond", "nav2_msgs"):
        pytest.importorskip(package, reason="needs ROS 2, with what Nav2 brings")
    from node_interfaces import Interface, of_mapper, of_relocalizer

    enclave = ElementTree.parse(repository / "config/sros2/policy.xml").find(f".//enclave[@path='/{node}']")
    assert enclave is not None

    def granted(what: str) -> set[str]:
        names = [str(element.text) for element in enclave.findall(f".//{what}")]
        assert len(names) == len(set(names)), "granted twice"
        return set(names)

    used = {"relocalizer": of_relocalizer, "mapper": of_mapper}[node](tmp_path)
    policy = Interface(
        heard=granted("topics[@subscribe='ALLOW']/topic"),
        said=granted("topics[@publish='ALLOW']/topic"),
        offered=granted("services[@reply='ALLOW']/service"),
        asked=granted("services[@request='ALLOW']/service"),
    )
    assert policy == used
