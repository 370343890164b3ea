"""What all tests share: a ROS environment of their own, and the data beside the repository."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import Result

from mast3r_ros import waiting_threads
from mast3r_ros.ros import fast_dds

REPOSITORY = Path(__file__).resolve().parents[1]
#: Files that take longest begin first, so that no worker is left alone with one of them at the end.
LONGEST = (
    *("training", "pointmap_reconstruction", "demo", "synthetic", "reconstruct", "device_training", "stress"),
    *("evaluation", "worlds", "network_benchmark", "ros_relocalizer_process", "endure", "map_care", "rgb_maps"),
)

# For tests started by plain pytest; scripts/with_ros.sh says the same. Read by rclpy when it is first used.
os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
if worker := os.environ.get("PYTEST_XDIST_WORKER"):  # gw0, gw1, ...: nodes of tests that run side by side are strangers
    os.environ["ROS_DOMAIN_ID"] = str(1 + (int(os.environ["ROS_DOMAIN_ID"]) + 37 * int(worker[2:])) % 100)
os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
os.environ.setdefault("ROS_LOG_DIR", str(REPOSITORY / ".cache" / "ros_log"))
os.environ.setdefault("ROS_PYTHON_CHECK_FIELDS", "1")
os.environ.update(fast_dds.setting(REPOSITORY / "config" / "fastdds.xml"))
# As the programs do: threads that spin slow the tests down. Nothing above imports numpy or torch.
waiting_threads.use_passive_waiting()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first; the others stay in their order."""
    ranks = {f"test_{name}": rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path.stem, len(ranks)))


@pytest.fixture(scope="session")
def repository() -> Path:
    """The repository's root."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder `shared` beside the repository, with real recordings; the test is skipped without it."""
    folder = REPOSITORY.parent / "shared"
    if not folder.is_dir():
        pytest.skip("needs the folder 'shared' beside the repository")
    return folder


@pytest.fixture()
def no_shipped_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package without a network of its own; what is put into the folder returned is one."""
    from mast3r_ros.network import shipped

    folder = tmp_path / "weights"
    folder.mkdir()
    monkeypatch.setattr(shipped, "WEIGHTS", folder)
    return folder


@pytest.fixture()
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Call the command `mast3r_ros` as a shell would, in this process."""
    from mast3r_ros.cli.common import DEBUG_VARIABLE
    from mast3r_ros.cli.main import main

    monkeypatch.delenv(DEBUG_VARIABLE, raising=False)
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: Any) -> Result:
        monkeypatch.setattr(sys, "argv", ["mast3r_ros", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as exit:
            code = int(exit.code or 0)
        return Result(code, *capsys.readouterr())

    return call


@pytest.fixture(scope="session")
def rooms_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where rooms of trainings are rendered to, by all workers of this run: one takes seconds."""
    mine = tmp_path_factory.getbasetemp()
    return (mine.parent if "PYTEST_XDIST_WORKER" in os.environ else mine) / "rooms"


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """PyTorch on one thread: a second one slows many small operations down, on a busy machine by much."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def rclpy_running() -> Iterator[None]:
    """rclpy, initialised and shut down."""
    from ros_world import ros

    with ros():
        yield


@pytest.fixture(scope="module")
def map_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The map of the tests of the ROS nodes, on disk."""
    from ros_world import build_map

    return build_map(tmp_path_factory.mktemp("maps") / "map")
