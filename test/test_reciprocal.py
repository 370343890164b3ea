"""Reciprocal matches against golden sets, and against plain definitions."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from golden_cases import COMPACT, SHARED, case, needs_shared

from mast3r_ros.lab.speed.match_recall import reciprocal_matches
from mast3r_ros.matching import fast_reciprocal_matches, neighbours
from mast3r_ros.matching.neighbours import nearest, roughly_nearest
from mast3r_ros.matching.pointmap_matches import pointmap_matches, reciprocal_points
from mast3r_ros.matching.reciprocal import (
    fast_reciprocal_matches_batch,
    merge_matches,
    to_xy,
)
from mast3r_ros.matching.searched import Searched

NAMES = ("random_48x64", "random_33x47_48x64", "shift_33x47", "shift_48x64", "shift_diff")
PATHS = [
    *(pytest.param(SHARED / "matching" / f"{name}.npz", marks=needs_shared, id=name) for name in NAMES),
    pytest.param(COMPACT / "matching" / "shift_diff.npz", id="any clone"),
]


def check(run: str, golden: dict, xy1: np.ndarray, xy2: np.ndarray) -> None:
    assert xy1.dtype == xy2.dtype == np.int64
    np.testing.assert_array_equal(xy1, golden[f"{run}__1"], err_msg=run)
    np.testing.assert_array_equal(xy2, golden[f"{run}__2"], err_msg=run)


@pytest.mark.parametrize("path", PATHS)
def test_golden_fast_search_from_a_grid(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    golden = case(path)
    desc = golden["desc1"], golden["desc2"]
    for subsample in (8, 4, 1):
        for metric, runs in (("dot", ("dot", "dot_blk500")), ("l2", ("l2", "kdtree"))):
            found = fast_reciprocal_matches(*desc, subsample=subsample, metric=metric)
            for run in runs:
                check(f"sub{subsample}_{run}", golden, *found)
    xy1, xy2 = fast_reciprocal_matches(*desc)
    np.testing.assert_array_equal(xy1[:, ::-1], golden["sub8_dot_y_x__1"])
    np.testing.assert_array_equal(xy2[:, ::-1], golden["sub8_dot_y_x__2"])
    for xy, shape, side in ((xy1, desc[0].shape, 1), (xy2, desc[1].shape, 2)):
        np.testing.assert_array_equal(xy @ [1, shape[1]], golden[f"sub8_dot_flat__{side}"])
    monkeypatch.setattr(neighbours, "CPU_TILE", (7, 100))
    monkeypatch.setattr(neighbours, "PIECE", 30)
    check("sub8_dot", golden, *fast_reciprocal_matches(*desc))


@pytest.mark.parametrize("pattern", ["random", "smooth", "constant", "opposite"])
def test_the_nearest_is_exact(pattern: str) -> None:
    generator = torch.Generator().manual_seed(3)
    queries, database = torch.randn(300, 24, generator=generator), torch.randn(5000, 24, generator=generator)
    if pattern == "smooth":
        steps = torch.linspace(0, 30, 5000)[:, None] * torch.linspace(0.1, 1, 12)
        database = torch.cat([steps.sin(), steps.cos()], dim=1)
        queries = database[torch.randint(5000, (300,), generator=generator)] + 1e-4 * queries
    elif pattern == "constant":
        database = torch.ones(5000, 24) + 1e-3 * database
    elif pattern == "opposite":  # nothing points the same way
        queries, database = queries.abs(), -database.abs()
    queries, database = (torch.nn.functional.normalize(values, dim=1) for values in (queries, database))
    found = nearest(queries[None], database[None])[0]
    products = queries.double() @ database.double().T
    best, expected = products.max(dim=1)
    assert ((found == expected) | (products[torch.arange(300), found] > best - 1e-6)).all()
    assert (found == expected).float().mean() > 0.99


def test_the_roughly_nearest_is_the_nearest_of_unit_vectors() -> None:
    queries, database = random_maps(8, 2, 300, 24), random_maps(9, 2, 5000, 24)
    found, exact = roughly_nearest(queries, database), nearest(queries, database)
    assert found.dtype == torch.int64 and found.shape == (2, 300)
    assert (found == exact).float().mean() > 0.99


def test_a_search_by_stride_makes_descriptors_comparable_itself() -> None:
    """Half precision, any length, channels beside them: as a head leaves them."""
    rough = torch.randn(2, 24, 32, 25, generator=torch.Generator().manual_seed(5)).bfloat16()
    ready = torch.nn.functional.normalize(rough[..., :24].float(), dim=-1)
    found = fast_reciprocal_matches_batch(rough[..., :24], rough.flip(1)[..., :24], subsample=4, stride=2)
    expected = fast_reciprocal_matches_batch(ready, ready.flip(1), subsample=4, stride=2)
    for (xy1, xy2), (true1, true2) in zip(found, expected, strict=True):
        assert len(xy1) > 10 and torch.equal(xy1, true1) and torch.equal(xy2, true2)


@pytest.mark.parametrize("path", PATHS)
def test_golden_explicit_starts(path: Path) -> None:
    golden = case(path)
    desc = golden["desc1"], golden["desc2"]
    y, x = (a.flatten() for a in np.mgrid[2 : desc[0].shape[0] : 5, 1 : desc[0].shape[1] : 3])
    for tolerance in (0, 1, 3, 5):
        found = fast_reciprocal_matches(*desc, starts=(x, y), pixel_tolerance=tolerance)
        check(f"init_tol{tolerance}_dot", golden, *found)
    mask = golden["init_mask_x"], golden["init_mask_y"]
    check("mask_tol5_dot", golden, *fast_reciprocal_matches(*desc, starts=mask, pixel_tolerance=5))
    check("mask_tol5_l2_blk700", golden, *fast_reciprocal_matches(*desc, starts=mask, pixel_tolerance=5, metric="l2"))


@pytest.mark.parametrize("path", PATHS)
def test_golden_exhaustive_search(path: Path) -> None:
    golden = case(path)
    desc = golden["desc1"], golden["desc2"]
    flat = [torch.from_numpy(d).flatten(0, 1)[None] for d in desc]
    for metric in ("dot", "l2"):
        np.testing.assert_array_equal(nearest(flat[0], flat[1], metric)[0], golden[f"nn_1to2_{metric}"])
        np.testing.assert_array_equal(nearest(flat[1], flat[0], metric)[0], golden[f"nn_2to1_{metric}"])
        found = [xy.numpy() for xy in reciprocal_matches(*map(torch.from_numpy, desc), metric=metric)]
        check(f"sub1_{metric}", golden, *found)
        for xy, d, side in ((found[0], desc[0], 1), (found[1], desc[1], 2)):
            np.testing.assert_array_equal(xy @ [1, d.shape[1]], golden[f"mutual_{metric}__{side}"])


@pytest.mark.parametrize("folder", [COMPACT, pytest.param(SHARED, marks=needs_shared)])
def test_golden_pointmap_matches(folder: Path) -> None:
    golden = case(folder / "matching" / "pointmap_matches.npz")
    for n in range(2):
        pts1, pts2 = golden[f"set{n}_pts1"], golden[f"set{n}_pts2"]
        reciprocal, nearest1, count = reciprocal_points(pts1.reshape(-1, 3), pts2.reshape(-1, 3))
        np.testing.assert_array_equal(reciprocal, golden[f"set{n}_reciprocal_in_P2"])
        np.testing.assert_array_equal(nearest1, golden[f"set{n}_nn2_in_P1"])
        assert count == golden[f"set{n}_num"][0]
        check(f"set{n}_fast3d_sub4", golden, *fast_reciprocal_matches(pts1, pts2, subsample=4, metric="l2"))
        xy1, xy2 = pointmap_matches(pts1, pts2)
        np.testing.assert_array_equal(xy2 @ [1, pts2.shape[1]], np.nonzero(reciprocal)[0])
        np.testing.assert_array_equal(xy1 @ [1, pts1.shape[1]], nearest1[reciprocal])


@pytest.mark.parametrize("folder", [COMPACT, pytest.param(SHARED, marks=needs_shared)])
def test_golden_merging(folder: Path) -> None:
    golden = case(folder / "matching" / "pointmap_matches.npz")
    index1, index2, first = merge_matches(*(torch.from_numpy(golden[f"merge_in{n}"]) for n in (1, 2)))
    np.testing.assert_array_equal(to_xy(index1, 20), golden["merge_out1"])
    np.testing.assert_array_equal(to_xy(index2, 25), golden["merge_out2"])
    np.testing.assert_array_equal(first, golden["merge_index"])


def test_merge_order() -> None:
    index1, index2, first = merge_matches(torch.tensor([5, 3, 3, 9, 3]), torch.tensor([1, 7, 2, 0, 7]))
    assert index1.tolist() == [3, 3, 5, 9]
    assert index2.tolist() == [2, 7, 1, 0]
    assert first.tolist() == [2, 1, 0, 3]


def random_maps(seed: int, *shape: int) -> torch.Tensor:
    maps = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(maps, dim=-1)


def test_every_fast_match_is_an_exhaustive_one() -> None:
    desc1, desc2 = random_maps(0, 40, 56, 24), random_maps(1, 32, 48, 24)
    exhaustive = {tuple(row) for row in torch.cat(reciprocal_matches(desc1, desc2), dim=1).tolist()}
    fast = {tuple(row) for row in torch.cat(fast_reciprocal_matches(desc1, desc2, subsample=4), dim=1).tolist()}
    assert fast and fast <= exhaustive
    everywhere = torch.cat(fast_reciprocal_matches(desc1, desc2, subsample=1), dim=1).tolist()
    assert {tuple(row) for row in everywhere} <= exhaustive


def test_a_batch_gives_what_its_pairs_give() -> None:
    """Pairs that converge at different speeds share one batch."""
    base = random_maps(2, 48, 64, 24)
    easy = torch.roll(base, (3, 5), dims=(0, 1))
    desc1, desc2 = torch.stack([base, base, base]), torch.stack([easy, random_maps(3, 48, 64, 24), base])
    for options in ({}, {"pixel_tolerance": 3.0}):
        together = fast_reciprocal_matches_batch(desc1, desc2, **options)
        for k, (xy1, xy2) in enumerate(together):
            alone1, alone2 = fast_reciprocal_matches(desc1[k], desc2[k], **options)
            assert torch.equal(xy1, alone1) and torch.equal(xy2, alone2)
    assert len(together[2][0]) == 48


def test_a_shifted_image_is_matched_everywhere() -> None:
    desc = random_maps(4, 48, 64, 24)
    xy1, xy2 = fast_reciprocal_matches(desc, torch.roll(desc, (8, -16), dims=(0, 1)))
    assert len(xy1) == 6 * 8
    np.testing.assert_array_equal((xy1[:, 0] - 16) % 64, xy2[:, 0])
    np.testing.assert_array_equal((xy1[:, 1] + 8) % 48, xy2[:, 1])


def test_equal_descriptors_take_the_first_pixel() -> None:
    desc = np.zeros((9, 9, 4), np.float32)
    desc[..., 0] = 1
    xy1, xy2 = fast_reciprocal_matches(desc, desc, subsample=2)
    assert xy1.tolist() == xy2.tolist() == [[0, 0]]


def test_no_starts_and_wrong_arguments() -> None:
    desc = random_maps(5, 16, 16, 8)
    nowhere = torch.zeros(0, dtype=torch.int64)
    xy1, xy2 = fast_reciprocal_matches(desc, desc, starts=(nowhere, nowhere))
    assert xy1.shape == xy2.shape == (0, 2)
    with pytest.raises(ValueError, match="metric 'cosine'"):
        fast_reciprocal_matches(desc, desc, metric="cosine")
    with pytest.raises(ValueError, match="subsample"):
        fast_reciprocal_matches(desc, desc, subsample=0)
    empty = np.zeros((0, 3))
    assert reciprocal_points(empty, np.zeros((4, 3)))[2] == 0
    assert reciprocal_points(np.zeros((4, 3)), empty)[0].shape == (0,)


def test_memory_stays_far_below_the_similarity_matrix() -> None:
    """3072 starts against 192 x 256 pixels: their similarities alone would take 604 MB."""
    desc1, desc2 = random_maps(6, 192, 256, 24), random_maps(7, 192, 256, 24)
    largest = 0

    class Largest(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor):
                largest = max(largest, result.untyped_storage().nbytes())
            return result

    with Largest():
        fast_reciprocal_matches(desc1, desc2, subsample=4)
    assert 0 < largest <= 4 * 1536 * 4096


def test_searching_every_second_pixel_first_finds_nearly_the_same():
    """Descriptors that change little between pixels: the surroundings of the best of few hold the best of all."""
    rng = np.random.default_rng(4)
    coarse = rng.normal(size=(9, 12, 8)).astype(np.float32)
    smooth = cv2.resize(coarse, (96, 72), interpolation=cv2.INTER_CUBIC)
    maps = torch.from_numpy(smooth / np.linalg.norm(smooth, axis=-1, keepdims=True))[None]
    moved = maps.roll((3, -5), dims=(1, 2))
    ((exact1, exact2),) = fast_reciprocal_matches_batch(maps, moved)
    ((xy1, xy2),) = fast_reciprocal_matches_batch(maps, moved, stride=2)
    same = {tuple(row) for row in torch.cat((exact1, exact2), dim=1).tolist()}
    assert len(xy1) > 0.8 * len(exact1)
    assert np.mean([tuple(row) in same for row in torch.cat((xy1, xy2), dim=1).tolist()]) > 0.8


@pytest.mark.parametrize("metric", ["dot", "l2"])
def test_the_pixel_itself_is_found_at_any_stride(metric):
    """At the border as well, and for more than one map at once."""
    y, x = torch.meshgrid(torch.linspace(0, 1, 21), torch.linspace(0, 1, 30), indexing="ij")
    angles = torch.stack((x, x + 2 * y))
    maps = torch.stack((angles.cos(), angles.sin(), y.expand(2, -1, -1), (1 - x * y).expand(2, -1, -1)), dim=-1)
    maps = maps / maps.norm(dim=-1, keepdim=True)
    pixels = torch.tensor([[0, 29, 20 * 30, 21 * 30 - 1, 307]] * 2)
    for stride in (1, 2, 3):
        searched = Searched.of(maps, stride, metric)
        assert torch.equal(searched.nearest(searched.at(pixels)), pixels)
    with pytest.raises(ValueError, match="stride"):
        Searched.of(maps, 0)
