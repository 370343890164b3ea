"""Windows of large images: golden selections, and what a selection must achieve."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from golden_cases import COMPACT, SHARED, case, needs_shared

from mast3r_ros.matching.coarse_to_fine import (
    candidate_pairs,
    fit_windows,
    greedy_cover,
    select_window_pairs,
    window_grid,
)

FOLDERS = [COMPACT / "matching", pytest.param(SHARED / "matching", marks=needs_shared)]
CASES = ["q1600x1200_r1600x1200", "q1024x768_r900x1600", "q640x480_r2000x1000", "q1200x1200_few"]


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("name", CASES)
def test_golden_selection(folder: Path, name: str) -> None:
    golden = case(folder / "coarse_to_fine.npz")
    golden = {k.removeprefix(f"{name}__"): v for k, v in golden.items() if k.startswith(f"{name}__")}
    meta = json.loads((folder / "meta.json").read_text())["coarse_to_fine"][name]
    sizes = [tuple(meta[f"{side}_hw"]) for side in ("query", "ref")]
    resolutions = [tuple(r) for r in meta["forced_resolution_hw"]]
    points = golden["pos_q"], golden["pos_ref"]
    fitted = []
    for side, size, resolution in zip(("q", "ref"), sizes, resolutions):
        grid = window_grid(size)
        np.testing.assert_array_equal(grid, golden[f"grid_{side}"])
        np.testing.assert_array_equal(fit_windows(grid, size, None), golden[f"grid_{side}_34"])
        fitted.append(fit_windows(grid, size, resolution))
        np.testing.assert_array_equal(fitted[-1], golden[f"grid_{side}_forced"])
    candidates = candidate_pairs(*points, *fitted, *sizes, *resolutions)
    np.testing.assert_array_equal(candidates.a, golden["cand_q"])
    np.testing.assert_array_equal(candidates.b, golden["cand_ref"])
    np.testing.assert_allclose(candidates.weights, golden["weights"], atol=1e-5)
    np.testing.assert_array_equal(greedy_cover(candidates.weights), golden["greedy_order"])
    for suffix, overlap, used in (("", 0.5, resolutions), ("_ov03", 0.3, [resolutions[0]] * 2)):
        selected = select_window_pairs(*points, *sizes, *used, overlap=overlap)
        np.testing.assert_array_equal(selected.a, golden[f"sel{suffix}_q"])
        np.testing.assert_array_equal(selected.b, golden[f"sel{suffix}_ref"])


@pytest.mark.parametrize(
    ("total", "window", "starts"),
    [(1200, 512, [0, 229, 459, 688]), (512, 512, [0]), (1024, 512, [0, 256, 512])],
)
def test_window_starts(total: int, window: int, starts: list[int]) -> None:
    grid = window_grid((total, total), size=window)
    assert sorted(set(grid[:, 0].tolist())) == starts


def test_every_pixel_lies_in_a_window() -> None:
    covered = np.zeros((900, 1200), dtype=bool)
    for left, top, right, bottom in window_grid((900, 1200)):
        covered[top:bottom, left:right] = True
    assert covered.all()


def test_windows_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        fit_windows(np.array([[0, 0, 100, 100]]), (200, 300), (384, 512))
