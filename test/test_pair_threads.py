"""Threads that each compute alone: nobody else's number of threads changes, and pairs come out as from one thread."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from oracle import TINY
from test_matching import texture

from mast3r_ros.frames import Camera, Frame
from mast3r_ros.lab.training.initialise import random_network
from mast3r_ros.matching import create
from mast3r_ros.matching.learned import NetworkMatcher
from mast3r_ros.matching.pair_threads import PairThreads
from mast3r_ros.matching.stopwatch import Stopwatch
from mast3r_ros.network.config import NetworkConfig

CAMERA = Camera.pinhole(320, 240, 300, 300, 159.5, 119.5)
SMALL = {**TINY.to_json(), "head_type": "catskip", "stem_dim": 8, "img_size": [96, 128]}


@pytest.fixture(autouse=True)
def _two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def seen_by_a_thread() -> int:
    """PyTorch's number of threads, as a thread that begins now has it."""
    seen: list[int] = []
    thread = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    return seen[0]


def test_the_threads_compute_alone_and_all_others_as_before() -> None:
    threads = PairThreads()
    meeting = threading.Barrier(threads.size)

    def work(task: int) -> tuple[int, int, str]:
        meeting.wait(10)  # both are at work at the same time
        return task, torch.get_num_threads(), threading.current_thread().name

    done = threads.map(work, [3, 4])
    assert [row[:2] for row in done] == [(3, 1), (4, 1)] and len({row[2] for row in done}) == 2
    assert torch.get_num_threads() == 2 and seen_by_a_thread() == 2


def test_a_failing_task_is_told_and_the_threads_go_on() -> None:
    threads = PairThreads()
    with pytest.raises(ZeroDivisionError):
        threads.map(lambda task: 1 // task, [1, 0, 2])
    assert threads.map(lambda task: 1 // task, [1, 2]) == [1, 0]


def small_matcher() -> NetworkMatcher:
    network = random_network(NetworkConfig.from_json(SMALL), seed=3)
    matcher = create("mast3r", checkpoint=network, device="cpu", dtype="float32", min_confidence=0.0)
    assert isinstance(matcher, NetworkMatcher)
    return matcher


@pytest.mark.parametrize("references", [1, 3])
def test_pairs_of_several_threads_are_those_of_one(references: int) -> None:
    matcher = small_matcher()
    assert matcher._pair_threads is not None
    depth = np.full((240, 320), 2.0, np.float32)
    query = matcher.describe(Frame(texture(0), CAMERA))
    keyframes = [matcher.describe(Frame(texture(i), CAMERA, depth=depth)) for i in range(references)]
    together = matcher.match(query, keyframes)
    assert set(matcher.stopwatch.ms) == {"decode", "heads", "match"}
    matcher._pair_threads = None
    alone = matcher.match(query, keyframes)
    assert len(together) == references and sum(map(len, together)) > 3
    for one, other in zip(together, alone, strict=True):
        same = {tuple(row) for row in one.query_xy.tolist()} & {tuple(row) for row in other.query_xy.tolist()}
        assert len(same) >= 0.95 * max(len(one), len(other))  # but for ties in the last bit


def test_a_matcher_can_be_sent_to_another_process() -> None:
    matcher = small_matcher()
    frame = Frame(texture(0), CAMERA, depth=np.full((240, 320), 2.0, np.float32))
    features = matcher.describe(frame)
    (found,) = matcher.match(features, [features])
    (again,) = pickle.loads(pickle.dumps(matcher)).match(features, [features])
    assert len(found) > 3
    np.testing.assert_array_equal(found.query_xy, again.query_xy)


def test_large_networks_share_their_operations_instead() -> None:
    matcher = create("mast3r", checkpoint=random_network(TINY, seed=3), size=96, device="cpu", dtype="float32")
    assert isinstance(matcher, NetworkMatcher) and matcher._pair_threads is None


def test_time_of_several_threads_counts_by_their_share() -> None:
    stopwatch, meeting = Stopwatch(torch.device("cpu")), threading.Barrier(2)

    def work() -> None:
        with stopwatch.stage("both"):
            meeting.wait(10)
            threading.Event().wait(0.2)

    with stopwatch.shared(2):
        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert 150 < stopwatch.ms["both"] < 5000  # twice 200 ms, each counted half
    with stopwatch.stage("alone"):
        threading.Event().wait(0.2)
    assert stopwatch.ms["alone"] > 190
