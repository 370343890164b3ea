"""Losses of the published recipe against golden values, gradients included, and their closed-form properties."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from mast3r_ros.lab.training import matching_loss, regression
from mast3r_ros.lab.training.regression import Errors, PointmapLoss, Points

RTOL = 1e-4
NAMES = ("pts3d", "conf", "desc", "desc_conf")


class Golden:
    """Inputs and expected values of one recorded case."""

    def __init__(self, folder) -> None:
        self.arrays = np.load(folder / "losses.npz")
        self.cases = json.loads((folder / "meta.json").read_text())["cases"]
        self.inputs = {}
        for view in (1, 2):
            for name in NAMES:
                stored = f"pred{view}_" + ("pts3d_in_other_view" if (view, name) == (2, "pts3d") else name)
                self.inputs[view, name] = torch.from_numpy(self.arrays[stored]).requires_grad_()

    def truth(self, name: str, view: int) -> torch.Tensor:
        return torch.from_numpy(self.arrays[f"gt{view}_{name}"])

    @property
    def points(self) -> tuple[Points, Points]:
        """Prediction and truth in camera 1's frame."""
        valid = (self.truth("valid_mask", 1), self.truth("valid_mask", 2))
        pose = self.truth("camera_pose", 1)
        true = [regression.in_first_camera(pose, self.truth("pts3d", view)) for view in (1, 2)]
        return Points(self.inputs[1, "pts3d"], self.inputs[2, "pts3d"], *valid), Points(*true, *valid)

    def errors(self, loss: PointmapLoss) -> Errors:
        sky = (self.truth("sky_mask", 1), self.truth("sky_mask", 2))
        return loss(*self.points, self.truth("is_metric_scale", 1), sky)

    def regression(self, loss: PointmapLoss) -> torch.Tensor:
        return regression.confident_error(self.errors(loss), self.inputs[1, "conf"], self.inputs[2, "conf"])

    def matched(self, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        first, second = (
            matching_loss.at_pixels(self.inputs[view, name], self.truth("corres", view)) for view in (1, 2)
        )
        return first, second

    @property
    def valid(self) -> torch.Tensor:
        return self.truth("valid_corres", 1)

    def matching(self, **options: Any) -> torch.Tensor:
        losses = matching_loss.infonce(*self.matched("desc"), 0.05)
        return matching_loss.confident_matching(losses, *self.matched("desc_conf"), self.valid, **options)

    def check(self, case: str, loss: torch.Tensor) -> None:
        """Value, and the gradient of every input that was recorded."""
        assert loss.item() == pytest.approx(self.cases[case]["loss"], rel=RTOL)
        recorded = self.cases[case]["gradients"]
        if recorded:
            loss.backward()
        for (view, name), tensor in self.inputs.items():
            stored = f"g{view}_" + ("pts3d_in_other_view" if (view, name) == (2, "pts3d") else name)
            if stored in recorded:
                expected = self.arrays[f"{case}__{stored}"]
                np.testing.assert_allclose(tensor.grad, expected, rtol=1e-3, atol=1e-6, err_msg=stored)


@pytest.fixture
def golden(shared_dir) -> Golden:
    return Golden(shared_dir / "golden" / "losses")


@pytest.mark.smoke
def test_published_training_criterion(golden):
    loss = golden.regression(PointmapLoss()) + 0.075 * golden.matching()
    golden.check("mast3r_train", loss)


DUST3R = {"metric": False, "sky_value": 0.0}


@pytest.mark.parametrize(
    ("case", "options"),
    [
        ("mast3r_regr_part", {}),
        ("mast3r_regr_normall", {"metric": False}),
        ("mast3r_regr_log", {"in_log": True}),
        ("mast3r_regr_maxmetric", {"max_metric_m": 3.5}),
        ("mast3r_regr_median", {"normalisation": "median_dis"}),
        ("dust3r_train", DUST3R),
    ],
)
def test_confident_regression(golden, case, options):
    golden.check(case, golden.regression(PointmapLoss(**options)))


@pytest.mark.parametrize(
    ("case", "options"),
    [
        ("mast3r_test_regr", {"truth_scale": True, "sky_value": 0.0}),
        ("mast3r_regr_scaleshift", {"truth_scale": True, "sky_value": 0.0, "invariance": "shift+scale"}),
        ("dust3r_regr", DUST3R),
        ("dust3r_test", DUST3R | {"truth_scale": True, "invariance": "shift+scale"}),
        ("dust3r_scaleinv", DUST3R | {"invariance": "scale"}),
        ("dust3r_shiftinv", DUST3R | {"invariance": "shift"}),
        ("dust3r_gtscale", DUST3R | {"truth_scale": True}),
    ],
)
def test_plain_regression(golden, case, options):
    golden.check(case, regression.mean_error(golden.errors(PointmapLoss(**options))))


@pytest.mark.parametrize(
    ("case", "options"),
    [
        ("mast3r_match_part", {}),
        ("mast3r_match_prod", {"mode": "prod"}),
        ("mast3r_match_negq", {"negative_quantile": 0.5}),
    ],
)
def test_confident_matching(golden, case, options):
    golden.check(case, golden.matching(**options))


@pytest.mark.parametrize(("mode", "temperature"), [("proper", 0.05), ("dual", 0.05), ("all", 0.07)])
def test_infonce_modes(golden, mode, temperature):
    losses = matching_loss.infonce(*golden.matched("desc"), temperature, mode)
    golden.check(f"infonce_{mode}", losses[golden.valid].mean())


def test_further_negatives(golden):
    first, second = golden.matched("desc")
    extra = matching_loss.padding_negatives(golden.inputs[2, "desc"], golden.truth("corres", 2), 100)
    losses = matching_loss.infonce(first, torch.cat((second, extra), dim=1), 0.07, "all")
    golden.check("infonce_negpad", losses[golden.valid].mean())
    with pytest.raises(ValueError, match="cannot take"):
        matching_loss.infonce(first, torch.cat((second, extra), dim=1))


def test_blocks(golden):
    permutation = torch.from_numpy(golden.arrays["infonce_blocks64__perm"])
    losses = matching_loss.infonce_in_blocks(*golden.matched("desc"), 64, permutation, 0.05)
    rows = torch.arange(len(permutation))[:, None]
    assert losses[golden.valid[rows, permutation]].mean().item() == pytest.approx(
        golden.cases["infonce_blocks64_manual"]["loss"], rel=RTOL
    )


def test_average_precision(golden):
    first, second = golden.matched("desc")
    extra = matching_loss.padding_negatives(golden.inputs[2, "desc"], golden.truth("corres", 2), 300)
    for case, dtype in (("mast3r_test_ap32", torch.float32), ("mast3r_test_ap16", torch.float16)):
        precision = matching_loss.average_precision(first, torch.cat((second, extra), dim=1), golden.valid, dtype)
        assert precision.item() == pytest.approx(abs(golden.cases[case]["loss"]), rel=2e-3)


def test_normalisations(shared_dir):
    stored = np.load(shared_dir / "golden" / "geometry" / "helpers.npz")
    a, b, valid_a, valid_b = (torch.from_numpy(stored[name]) for name in ("a", "b", "valid_a", "valid_b"))
    for mode in regression.NORMALISATIONS:
        points, size = regression.normalised(Points(a, b, valid_a, valid_b), mode)
        np.testing.assert_allclose(size, stored[f"norm_{mode}_factor"], rtol=RTOL)
        for found, name in ((points.view1, "a"), (points.view2, "b")):
            expected = stored[f"norm_{mode}_{name}"]
            mask = stored[f"valid_{name}"]
            np.testing.assert_allclose(found.numpy()[mask], expected[mask], rtol=RTOL, atol=1e-6)


def test_infonce_is_two_cross_entropies():
    torch.manual_seed(0)
    first, second = (torch.nn.functional.normalize(torch.randn(1, 20, 8), dim=2) for _ in range(2))
    logits = (first @ second.transpose(1, 2))[0] / 0.1
    target = torch.arange(20)
    expected = torch.nn.functional.cross_entropy(logits, target, reduction="none")
    expected = expected + torch.nn.functional.cross_entropy(logits.T, target, reduction="none")
    torch.testing.assert_close(matching_loss.infonce(first, second, 0.1)[0], expected)


def test_normalised_points_have_mean_distance_one():
    torch.manual_seed(0)
    valid = torch.rand(2, 4, 5) > 0.3
    points = Points(torch.randn(2, 4, 5, 3), torch.randn(2, 4, 5, 3), valid, valid)
    found, _ = regression.normalised(points, "avg_dis")
    for k in range(2):
        inside = torch.cat((found.view1[k][valid[k]], found.view2[k][valid[k]]))
        assert inside.norm(dim=1).mean().item() == pytest.approx(1.0, rel=1e-5)
