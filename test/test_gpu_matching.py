"""Kernels of the matching against their plain references: interpreted on a CPU, compiled on a GPU."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from typing import NoReturn

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from kernels import COMPILED, DEVICES, record_plainly
from torch import Tensor

from mast3r_ros.matching.dust3r import best_of_cells
from mast3r_ros.matching.gpu import kernel_use
from mast3r_ros.matching.gpu.kernel_use import with_kernels
from mast3r_ros.matching.gpu.matches import matches_on_device, packed_matches, unpacked
from mast3r_ros.matching.gpu.points import point_matches_on_device
from mast3r_ros.matching.gpu.replays import Replays
from mast3r_ros.matching.gpu.search import DeviceMaps, Queue, Tiling, columns_of, nearest_by_kernels, search, unasked
from mast3r_ros.matching.gpu.walk import walk
from mast3r_ros.matching.neighbours import nearest, tile_by_tile
from mast3r_ros.matching.pair_matches import MatchOptions, PairMatches, confident_matches
from mast3r_ros.matching.pointmap_matches import pointmap_matches
from mast3r_ros.matching.reciprocal import _walk
from mast3r_ros.matching.searched import Searched

#: Every column of a tile, and pieces of tiles.
TILINGS = {"tiles": Tiling(32, 32, 0, 2, 4, 2), "pieces": Tiling(32, 16, 2, 2, 4, 2)}
TYPES = {"half": torch.float16, "bfloat": torch.bfloat16, "full": torch.float32}

device = pytest.mark.parametrize("device", DEVICES)
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton")  # the interpreter's NumPy, of NaN


@pytest.fixture(autouse=True)
def kernels_are_used(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test inherits a fallback, and where a test is about kernels, they must have run."""
    reasons: list[str] = []
    monkeypatch.setattr(kernel_use, "_given_up", reasons)
    yield
    assert "device" not in request.fixturenames or not reasons


def whole_numbers(seed: int, *shape: int, reach: int = 3) -> Tensor:
    """Values whose products every type holds exactly, so that many scores are equal."""
    return torch.randint(-reach, reach + 1, shape, generator=torch.Generator().manual_seed(seed)).float()


def smooth_pair(seed: int, K: int, height: int, width: int, channels: int = 24) -> tuple[Tensor, Tensor]:
    """Two views of one pattern, some pixels apart, (K, H, W, D): views of (K, D, H, W), of any length."""
    generator = torch.Generator().manual_seed(seed)
    pattern = torch.randn(K, channels, height // 3 + 4, width // 3 + 4, generator=generator)
    pattern = F.interpolate(pattern, scale_factor=3, mode="bilinear")
    views = pattern[:, :, 2 : 2 + height, 1 : 1 + width], pattern[:, :, 4 : 4 + height, 4 : 4 + width]
    first, second = (2 * (v + 0.05 * torch.randn(v.shape, generator=generator)).movedim(1, -1) for v in views)
    return first, second


def on(device: str, *tensors: Tensor) -> list[Tensor]:
    return [tensor.to(device) for tensor in tensors]


def skip_what_the_interpreter_cannot(device: str, products: torch.dtype) -> None:
    if device == "cpu" and products == torch.bfloat16:
        pytest.skip("Triton's interpreter multiplies the bits of bfloat16")


# -- the search ----------------------------------------------------------------------------------------


@device
@pytest.mark.parametrize("products", TYPES)
@pytest.mark.parametrize("metric", ["dot", "l2"])
@pytest.mark.parametrize("tiling", TILINGS)
def test_the_search_is_exact_and_takes_the_first_of_equals(
    device: str, products: str, metric: str, tiling: str
) -> None:
    dtype = TYPES[products]
    skip_what_the_interpreter_cannot(device, dtype)
    for seed, (K, rows, columns, channels) in enumerate([(2, 37, 70, 5), (1, 16, 64, 24), (1, 9, 41, 33)]):
        queries, database = whole_numbers(seed, K, rows, channels), whole_numbers(seed + 90, K, columns, channels)
        database[:, -1] = database[:, 0]  # a tie between programs
        queries[:, 0] = 0  # every score is the same, and of both signs of zero
        expected = nearest(queries, database, metric)
        own, other = (DeviceMaps.of(v[:, None], dtype, metric, unit=False) for v in on(device, queries, database))
        table = unasked(own)
        search(own, other, None, table, None if own.by_channel else TILINGS[tiling])
        torch.testing.assert_close(columns_of(table).cpu(), expected, rtol=0, atol=0)


@device
@pytest.mark.parametrize("channels", [1, 3, 16, 17, 64])
def test_any_number_of_channels_up_to_64(device: str, channels: int) -> None:
    queries, database = whole_numbers(7, 1, 20, channels), whole_numbers(8, 1, 50, channels)
    for metric in ("dot", "l2"):
        found = nearest_by_kernels(*on(device, queries, database), metric)
        assert torch.equal(found.cpu(), nearest(queries, database, metric))
    with pytest.raises(ValueError, match="65 channels"):
        nearest_by_kernels(*on(device, torch.zeros(1, 4, 65), torch.zeros(1, 4, 65)))


@device
def test_what_cannot_be_compared_is_nobodys_nearest(device: str) -> None:
    queries, database = whole_numbers(1, 1, 20, 8), whole_numbers(2, 1, 60, 8)
    database[0, ::3] = torch.nan
    queries[0, 4] = torch.nan
    kept = torch.arange(60)[torch.arange(60) % 3 != 0]
    for metric in ("dot", "l2"):
        for dtype in (torch.float16, torch.float32):
            found = nearest_by_kernels(*on(device, queries, database), metric, dtype)[0].cpu()
            expected = kept[nearest(queries, database[:, kept], metric)[0]]
            assert found[4] == 0
            rows = torch.arange(20) != 4
            assert torch.equal(found[rows], expected[rows])


@device
def test_points_that_are_close_are_told_apart(device: str) -> None:
    """Ten metres away and a tenth of a millimetre apart: the product form of the distance would cancel."""
    generator = torch.Generator().manual_seed(4)
    database = 10 + 1e-4 * torch.arange(60)[torch.randperm(60, generator=generator)][None, :, None].expand(1, 60, 3)
    queries = database[:, 20:40] + 1e-5
    assert nearest_by_kernels(*on(device, queries, database), "l2")[0].tolist() == list(range(20, 40))


@device
def test_only_queued_pixels_are_searched_for(device: str) -> None:
    a, b = on(device, whole_numbers(3, 2, 4, 10, 8), whole_numbers(4, 2, 5, 9, 8))
    own, other = DeviceMaps.of(a, torch.float16, unit=False), DeviceMaps.of(b, torch.float16, unit=False)
    table = unasked(own)
    pixels = torch.tensor([[7, 3, 0, 0], [39, 1, 2, 0]], dtype=torch.int32, device=device)
    search(own, other, Queue(pixels, torch.tensor([2, 3], dtype=torch.int32, device=device)), table)
    asked = [row.nonzero().flatten().tolist() for row in table.cpu() != torch.iinfo(torch.int64).min]
    assert asked == [[3, 7], [1, 2, 39]]
    expected = nearest(a.flatten(1, 2).cpu(), b.flatten(1, 2).cpu())
    for k, rows in enumerate(asked):
        assert torch.equal(columns_of(table).cpu()[k, rows], expected[k, rows])


@device
def test_searches_of_nothing_and_among_nothing(device: str) -> None:
    some, none = torch.zeros(2, 3, 4, device=device), torch.zeros(2, 0, 4, device=device)
    assert nearest_by_kernels(none, some).shape == (2, 0)
    assert nearest_by_kernels(some[:0], some[:0]).shape == (0, 3)
    with pytest.raises(ValueError, match="among no pixels"):
        nearest_by_kernels(some, none)


@device
def test_descriptors_are_made_unit_vectors_whatever_their_strides_and_type(device: str) -> None:
    maps = torch.randn(2, 25, 6, 7, generator=torch.Generator().manual_seed(5)).bfloat16().movedim(1, -1)[..., :24]
    unit = F.normalize(maps.float(), dim=-1).flatten(1, 2)
    rows = DeviceMaps.of(maps.to(device), torch.float16).rows.cpu()
    assert rows.shape == (2, 42, 32) and not rows[..., 24:].any()
    torch.testing.assert_close(rows[..., :24].float(), unit, rtol=1e-3, atol=1e-6)
    by_channel = DeviceMaps.of(maps.to(device), torch.float32, "l2").rows.cpu()
    assert torch.equal(by_channel, maps.float().flatten(1, 2).mT)


def test_the_search_without_kernels_bounds_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mast3r_ros.matching.neighbours.GPU_ROWS", 5)
    monkeypatch.setattr("mast3r_ros.matching.neighbours.GPU_TILE", 70)
    largest = []

    def noted(queries: Tensor, database: Tensor, *rest: object) -> Tensor:
        largest.append(queries.shape[0] * queries.shape[1] * database.shape[1])
        return queries @ database.mT

    monkeypatch.setattr("mast3r_ros.matching.neighbours._similarity", noted)
    queries, database = whole_numbers(1, 2, 23, 6), whole_numbers(2, 2, 41, 6)
    found = tile_by_tile(queries, database)
    assert max(largest) <= 70 and len(largest) > 6
    monkeypatch.undo()
    assert torch.equal(found, nearest(queries, database))


# -- the walk ------------------------------------------------------------------------------------------


@device
@pytest.mark.parametrize("metric", ["dot", "l2"])
@pytest.mark.parametrize("rounds", [1, 4])
def test_the_walk_ends_where_the_plain_one_does(device: str, metric: str, rounds: int) -> None:
    """Whole numbers: equal scores everywhere, and walks that meet and part."""
    a, b = whole_numbers(11, 2, 9, 11, 6), whole_numbers(12, 2, 8, 13, 6)
    begin = torch.arange(0, 99, 3).expand(2, -1)
    expected = _walk(Searched.of(a, metric=metric), Searched.of(b, metric=metric), begin, rounds)
    dtype = torch.float16 if rounds > 1 else torch.float32
    maps = [DeviceMaps.of(m, dtype, metric, unit=False) for m in on(device, a, b)]
    for values, true in zip(walk(*maps, begin.to(device), rounds), expected, strict=True):
        torch.testing.assert_close(values.cpu().to(true.dtype), true, rtol=0, atol=0)


@device
def test_walks_that_are_left_out_never_arrive(device: str) -> None:
    a, b = (DeviceMaps.of(m, torch.float16) for m in on(device, *smooth_pair(3, 1, 8, 10)))
    begin = torch.arange(80, device=device)[None]
    chosen = begin % 2 == 0
    some, every = walk(a, b, begin, 3, active=chosen), walk(a, b, begin, 3)
    assert every[2].sum() > 10
    assert torch.equal(some[2], every[2] & chosen)
    assert torch.equal(some[1][some[2]], every[1][some[2]])


# -- matches -------------------------------------------------------------------------------------------


def same(found: list[PairMatches], expected: list[PairMatches], share: float = 1.0) -> None:
    """The same matches in the same order, but for a share that rounding decides."""
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.xy1.dtype == ours.xy2.dtype == np.int64 and ours.conf.dtype == np.float32
        if share == 1.0:
            for values, true in zip(ours, theirs, strict=True):
                np.testing.assert_array_equal(values, true)
            continue
        rows, true = (set(map(tuple, np.column_stack(m[:2]).tolist())) for m in (ours, theirs))
        assert len(rows & true) >= share * len(rows | true)


@device
@pytest.mark.parametrize("stride", [1, 2])
def test_matches_are_those_of_the_cpu(device: str, stride: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("reciprocal", "gpu.matches"):  # each launch is slow in the interpreter
        monkeypatch.setattr(f"mast3r_ros.matching.{module}.MAX_ROUNDS", 3)
    generator = torch.Generator().manual_seed(9)
    first, second = smooth_pair(0, 2, 12, 15)
    conf1, conf2 = (torch.rand(2, 12, 15, generator=generator) for _ in range(2))
    options = MatchOptions(subsample=3, stride=stride, min_confidence=0.2)
    unit = [F.normalize(d, dim=-1).contiguous() for d in (first, second)]
    expected = confident_matches(*unit, conf1, conf2, options)
    assert min(len(m.conf) for m in expected) > 5
    arguments = on(device, first, second, conf1, conf2)
    same(matches_on_device(*arguments, options, torch.float32), expected)
    same(matches_on_device(*arguments, options, torch.float16), expected, share=0.9)


@device
def test_a_batch_without_pairs_and_maps_without_a_start(device: str) -> None:
    none = torch.zeros(0, 8, 8, 24, device=device)
    assert matches_on_device(none, none, none[..., 0], none[..., 0], MatchOptions()) == []
    small = torch.randn(1, 4, 4, 24, device=device)
    (found,) = matches_on_device(small, small, small[..., 0], small[..., 0], MatchOptions(subsample=8))
    assert len(found.conf) == 0 and found.xy1.shape == (0, 2)


@device
def test_descriptors_without_a_length_match_nothing(device: str) -> None:
    first, second = smooth_pair(2, 1, 12, 12)
    first, second = first.clone(), second.clone()
    first[:, :6], second[:, :6] = 0, torch.nan
    conf = torch.ones(1, 12, 12)
    (found,) = matches_on_device(*on(device, first, second, conf, conf), MatchOptions(subsample=2))
    assert len(found.conf) > 3
    assert found.xy1[:, 1].min() >= 6 and found.xy2[:, 1].min() >= 6


def test_what_is_asked_for_twice_with_the_same_memory_is_recorded() -> None:
    """A replay reads what is in the memory now; other memory is another recording, and few are kept."""
    computed = []

    def doubled(values: Tensor) -> Tensor:
        computed.append(1)
        return 2 * values

    replays = Replays(record_plainly)
    values = torch.ones(3)
    for number in range(1, 5):
        values.fill_(number)
        assert replays.run("double", doubled, [values], Tensor.clone).tolist() == [2 * number] * 3
    assert len(replays) == 1
    assert replays.run("double", doubled, [values[:2]], Tensor.clone).tolist() == [8, 8]
    assert len(replays) == 1
    assert replays.run("triple", lambda v: 3 * v, [values], Tensor.clone).tolist() == [12] * 3
    others = [torch.ones(2) for _ in range(40)]
    for other in others:
        replays.run("double", doubled, [other], Tensor.clone)
    assert len(replays) == 0


def test_what_cannot_be_recorded_is_computed(caplog: pytest.LogCaptureFixture) -> None:
    def fails(*_: object) -> NoReturn:
        raise RuntimeError("operation not permitted when stream is capturing")

    replays = Replays(fails)
    values = torch.ones(3)
    for _ in range(4):
        assert replays.run("double", lambda v: 2 * v, [values], Tensor.clone).tolist() == [2] * 3
    assert len(caplog.records) == 1 and "stays slower" in caplog.text


@pytest.mark.parametrize("device", [COMPILED])
def test_matches_of_the_same_memory_are_replayed(device: str) -> None:
    maps = on(device, *smooth_pair(6, 2, 48, 64), *torch.ones(2, 2, 48, 64))
    for seed in (6, 7, 8, 9, 6):
        for place, values in zip(maps, smooth_pair(seed, 2, 48, 64)):
            place.copy_(values)
        fresh = packed_matches(*(m.clone() for m in maps), MatchOptions())
        same(matches_on_device(*maps, MatchOptions()), unpacked(fresh.cpu(), 64, 64))


@pytest.mark.parametrize("device", [COMPILED])
def test_matches_can_be_part_of_a_cuda_graph(device: str) -> None:
    first, second = on(device, *smooth_pair(6, 2, 48, 64))
    conf = torch.ones(2, 48, 64, device=device)
    expected = packed_matches(first, second, conf, conf, MatchOptions())
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        recorded = packed_matches(first, second, conf, conf, MatchOptions())
    other1, other2 = on(device, *smooth_pair(7, 2, 48, 64))
    for a, b in ((first, second), (other1, other2)):
        true = expected if a is first else packed_matches(a, b, conf, conf, MatchOptions())
        first.copy_(a), second.copy_(b)
        graph.replay()
        same(unpacked(recorded.cpu(), 64, 64), unpacked(true.cpu(), 64, 64))


@pytest.mark.parametrize("device", [COMPILED])
@pytest.mark.parametrize("seed", range(4))
def test_full_size_searches_agree_with_float32(device: str, seed: int) -> None:
    """As large as a network's maps, with tiles as they are used."""
    first, second = on(device, *smooth_pair(seed, 2, 192, 256))
    queries = F.normalize(first, dim=-1).flatten(1, 2)[:, ::13].contiguous()
    database = F.normalize(second, dim=-1).flatten(1, 2).contiguous()
    torch.backends.cuda.matmul.allow_tf32 = False
    expected = tile_by_tile(queries, database)
    for dtype, loss in ((torch.float32, 1e-6), (torch.float16, 1e-3), (torch.bfloat16, 8e-3)):
        found = nearest_by_kernels(queries, database, "dot", dtype)
        scores = [(queries * database.gather(1, i[..., None].expand(-1, -1, 24))).sum(-1) for i in (expected, found)]
        assert (scores[0] - scores[1]).max() < loss
        assert (found == expected).float().mean() > (0.999 if dtype == torch.float32 else 0.9)


# -- points --------------------------------------------------------------------------------------------


@device
def test_points_match_as_on_the_cpu(device: str) -> None:
    generator = torch.Generator().manual_seed(8)
    points1 = torch.randn(2, 9, 12, 3, generator=generator)
    points2 = points1.flip(2)[:, :8] + 0.05 * torch.randn(2, 8, 12, 3, generator=generator)
    points1[0, 2:4, 3] = torch.nan
    points2[1, :, 5] = torch.inf
    conf1, conf2 = (torch.randint(1, 9, p.shape[:3], generator=generator).float() for p in (points1, points2))
    maps = points1, points2, conf1, conf2
    found = point_matches_on_device(*on(device, *maps), cell=4, min_confidence=3.0)
    expected = []
    for p1, p2, c1, c2 in zip(*(m.numpy() for m in maps)):
        xy1, xy2 = pointmap_matches(
            p1, p2, np.isfinite(p1).all(axis=-1) & (c1 >= 3), np.isfinite(p2).all(axis=-1) & (c2 >= 3)
        )
        conf = np.minimum(c1[xy1[:, 1], xy1[:, 0]], c2[xy2[:, 1], xy2[:, 0]])
        kept = best_of_cells(xy1, conf, 4)
        assert len(kept) > 4
        expected.append(PairMatches(xy1[kept], xy2[kept], conf[kept]))
    same(found, expected)
    (nothing, _) = point_matches_on_device(*on(device, *maps), cell=4, min_confidence=100.0)
    assert len(nothing.conf) == 0


@pytest.mark.parametrize("device", [COMPILED])
@pytest.mark.parametrize("seed", range(3))
def test_full_size_pointmaps_have_the_nearest_of_a_search_of_all(device: str, seed: int) -> None:
    """Rolling ground seen twice: nearly all tiles are passed by, and none of those that matter."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.linspace(-1, 1, 192), torch.linspace(-1, 1, 256), indexing="ij")
    depth = 3 + torch.sin(5 * x + seed) + torch.cos(4 * y)
    ground = torch.stack((x * depth, y * depth, depth), dim=-1).flatten(0, 1)[None]
    other = (ground + 0.01 * torch.randn(ground.shape, generator=generator)).flip(1)[:, 1000:]
    other[:, ::7] = torch.nan
    queries, database = on(device, ground[:, ::5].contiguous(), other)
    found = nearest_by_kernels(queries, database, "l2")
    expected = tile_by_tile(queries, database.nan_to_num(nan=1e9), "l2")
    apart = [(queries - database.gather(1, i[..., None].expand(-1, -1, 3))).norm(dim=-1) for i in (found, expected)]
    assert (apart[0] - apart[1]).max() < 1e-6
    assert (found == expected).float().mean() > 0.999


# -- where kernels do not run --------------------------------------------------------------------------


def test_kernels_that_fail_are_given_up_with_one_sentence(caplog: pytest.LogCaptureFixture) -> None:
    calls = []

    def broken() -> str:
        calls.append(1)
        raise RuntimeError("0 active drivers ([]). There should only be one.\nmany more lines")

    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert with_kernels(torch.device("cpu"), broken, lambda: "plain") == "plain"
    (record,) = caplog.records
    assert len(calls) == 1
    assert "0 active drivers" in record.getMessage() and "many more lines" not in record.getMessage()


def test_what_fails_either_way_and_a_lack_of_memory_are_no_reasons_to_give_up() -> None:
    def wrong() -> str:
        raise ValueError("the caller's mistake")

    with pytest.raises(ValueError, match="the caller's mistake"):
        with_kernels(torch.device("cpu"), wrong, wrong)

    def too_large() -> str:
        raise torch.cuda.OutOfMemoryError("out of memory")

    with pytest.raises(torch.cuda.OutOfMemoryError):
        with_kernels(torch.device("cpu"), too_large, lambda: "plain")
    assert with_kernels(torch.device("cpu"), lambda: "fused", lambda: "plain") == "fused"


@pytest.mark.parametrize("stride", [1, 2])
def test_without_triton_the_matches_are_the_plain_ones(
    stride: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def missing() -> None:
        raise ModuleNotFoundError("No module named 'triton'", name="triton")

    monkeypatch.setattr("mast3r_ros.matching.gpu.search.kernels", missing)
    first, second = smooth_pair(1, 2, 20, 24)
    conf = torch.ones(2, 20, 24)
    options = MatchOptions(subsample=3, stride=stride)
    unit = [F.normalize(d, dim=-1).contiguous() for d in (first, second)]
    same(matches_on_device(first, second, conf, conf, options), confident_matches(*unit, conf, conf, options))
    assert "pip install triton" in caplog.text


def test_nothing_imports_triton_before_a_gpu_is_searched() -> None:
    """Neither importing the matchers nor matching on a CPU does."""
    code = (
        "import sys, torch\n"
        "from mast3r_ros.matching import fast_reciprocal_matches\n"
        "import mast3r_ros.matching.gpu.matches, mast3r_ros.matching.gpu.points\n"
        "fast_reciprocal_matches(torch.randn(16, 16, 24), torch.randn(16, 16, 24))\n"
        "assert 'triton' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
