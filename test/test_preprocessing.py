"""Images at network size: exact agreement with golden results, and pixels that find their way back."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import PIL
import pytest
import torch
from golden_cases import COMPACT, SHARED, needs_shared
from PIL import Image

from mast3r_ros.errors import CodecError
from mast3r_ros.network.preprocessing import (
    NetworkImage,
    load_image,
    prepare,
    prepare_for_localization,
    training_resolution,
)
from mast3r_ros.network.resampling import resized

HERE = COMPACT / "preprocessing"
THERE = SHARED / "preprocessing"


#: Pillow 13, which made the golden data, shrinks this image's columns before its rows; earlier releases do it the
#: other way round and differ by one grey value here and there.
DEPENDS_ON_PILLOW = {"e_37x501__256_0"} if int(PIL.__version__.split(".")[0]) < 13 else set()


def runs(folder: Path) -> list:
    """(file, settings and results) of every golden run in a folder."""
    if not folder.is_dir():
        return []
    images = json.loads((folder / "meta.json").read_text())["images"]
    images.pop("folder_call_size512", None)  # file names only
    return [pytest.param(i["file"], run, id=run["key"]) for i in images.values() for run in i["runs"]]


def check(folder: Path, file: str, run: dict) -> NetworkImage | None:
    image = load_image(folder / file)
    if 0 in run["img_shape"]:
        with pytest.raises(CodecError, match="too long and thin"):
            prepare(image, run["size"], run["square_ok"])
        return None
    prepared = prepare(image, run["size"], run["square_ok"])
    assert [list(prepared.size)] == run["true_shape"]
    if run["key"] in DEPENDS_ON_PILLOW:
        return prepared
    assert prepared.tensor.mean().item() == pytest.approx(run["mean"], abs=1e-5)
    assert hashlib.sha256(prepared.tensor.numpy().tobytes()).hexdigest() == run["sha256_float32"]
    as_bytes = np.ascontiguousarray(prepared.pixels.transpose(2, 0, 1))
    assert hashlib.sha256(as_bytes.tobytes()).hexdigest() == run["sha256_uint8_chw"]
    return prepared


@needs_shared
@pytest.mark.parametrize(("file", "run"), runs(THERE))
def test_golden(file: str, run: dict) -> None:
    prepared = check(THERE, file, run)
    with np.load(THERE / "outputs.npz") as outputs:
        if prepared is not None:
            atol = 1.01 / 127.5 if run["key"] in DEPENDS_ON_PILLOW else 0
            np.testing.assert_allclose(
                prepared.tensor[0].numpy()[:, 3::8, 5::8], outputs[run["key"]], atol=atol, rtol=0
            )
        if f"{run['key']}__full_u8" in outputs and prepared is not None:
            full = outputs[f"{run['key']}__full_u8"]
            layout = prepared.pixels if full.shape == prepared.pixels.shape else prepared.pixels.transpose(2, 0, 1)
            np.testing.assert_array_equal(layout, full)


@pytest.mark.parametrize(("file", "run"), runs(HERE))
def test_golden_in_any_clone(file: str, run: dict) -> None:
    check(HERE, file, run)


@pytest.mark.parametrize(
    ("original", "expected", "square_ok"),
    [
        ((640, 480), (512, 384), False),
        ((500, 500), (512, 384), False),
        ((500, 500), (512, 512), True),
        ((700, 500), (512, 352), False),
        ((513, 384), (512, 368), False),
        ((1000, 333), (512, 160), False),
        ((300, 200), (512, 336), False),
        ((225, 224), (512, 496), False),
        ((720, 1280), (288, 512), False),
    ],
)
def test_sizes(original: tuple[int, int], expected: tuple[int, int], square_ok: bool) -> None:
    image = np.zeros((original[1], original[0], 3), np.uint8)
    assert prepare(image, 512, square_ok).size == expected[::-1]


@pytest.mark.parametrize(
    ("size", "resolution", "scale", "offset"),
    [
        ((480, 640), (384, 512), (1.25, 1.25), (0, 0)),
        ((500, 500), (384, 512), (0.9765625, 0.9765625), (0, 62.5)),
        ((700, 1000), (336, 512), (1.953125, 1.952380952), (0, 22)),
        ((1080, 1920), (288, 512), (3.75, 3.75), (0, 0)),
    ],
)
def test_localization_resize(size: tuple, resolution: tuple, scale: tuple, offset: tuple) -> None:
    image = np.zeros((*size, 3), np.uint8)
    prepared = prepare_for_localization(image, reference_offsets=True)
    assert prepared.size == resolution == training_resolution(*size)
    np.testing.assert_allclose(
        prepared.original_T_input, [[scale[0], 0, offset[0]], [0, scale[1], offset[1]], [0, 0, 1]]
    )
    upright = prepare_for_localization(image.transpose(1, 0, 2))
    assert upright.size == (resolution[::-1] if size[0] != size[1] else resolution)


def test_training_resolutions_of_224() -> None:
    assert training_resolution(480, 640, 224) == (224, 224)
    with pytest.raises(ValueError, match="only of 224 and 512"):
        training_resolution(480, 640, 300)


@pytest.mark.parametrize("resize", [prepare, prepare_for_localization])
@pytest.mark.parametrize("size", [(501, 701), (640, 480), (480, 640), (300, 300)])
def test_pixels_find_their_way_back(resize, size: tuple[int, int]) -> None:
    """The centre of a bright square, measured in the network image, maps to its place in the original."""
    image = np.zeros((*size, 3), np.uint8)
    top, left = size[0] // 2 - 30, size[1] // 3
    image[top : top + 40, left : left + 40] = 255
    prepared = resize(image)
    brightness = prepared.pixels[..., 0].astype(float)
    y, x = np.mgrid[: prepared.size[0], : prepared.size[1]]
    centre = np.array([[(x * brightness).sum(), (y * brightness).sum()]]) / brightness.sum()
    truth = np.array([[left + 19.5, top + 19.5]])
    np.testing.assert_allclose(prepared.to_original(centre), truth, atol=0.06)


def test_unreadable_images_are_named(tmp_path: Path) -> None:
    (tmp_path / "note.png").write_text("no image")
    with pytest.raises(CodecError, match=r"note\.png"):
        load_image(tmp_path / "note.png")
    with pytest.raises(CodecError, match=r"none\.png"):
        load_image(tmp_path / "none.png")
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "whole.jpg")
    (tmp_path / "half.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:900])
    with pytest.raises(CodecError, match=r"half\.jpg"):
        load_image(tmp_path / "half.jpg")


@pytest.mark.parametrize("size", [(320, 240), (512, 288), (200, 307), (640, 90), (37, 480)])
@pytest.mark.parametrize("kernel", ["lanczos", "bicubic"])
def test_matrices_resize_as_pillow_does(size: tuple[int, int], kernel: str) -> None:
    """Noise for the sums, and a ramp whose weighted means lie on halves, where rounding shows every difference."""
    noise = np.random.default_rng(0).integers(0, 256, (180, 320, 3), dtype=np.uint8)
    ramp = (np.indices((180, 320)).sum(axis=0)[..., None] % 256).repeat(3, axis=2).astype(np.uint8)
    for image in (noise, ramp):
        pillow = np.asarray(
            Image.fromarray(image).resize(size, getattr(getattr(Image, "Resampling", Image), kernel.upper()))
        )
        ours = resized(torch.from_numpy(image).permute(2, 0, 1).float(), size[1], size[0], kernel).permute(1, 2, 0)
        # From Pillow 13 on the columns may come first, which moves a level here and there.
        atol = 0 if int(PIL.__version__.split(".")[0]) < 13 else 1
        np.testing.assert_allclose(ours.numpy(), pillow, atol=atol, rtol=0)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU here")
@pytest.mark.parametrize("shape", [(480, 640), (720, 1280), (300, 200), (384, 512)])
def test_a_gpu_prepares_the_same_image(shape: tuple[int, int]) -> None:
    image, device = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8), torch.device("cuda")
    for size, work in (
        (512, prepare_for_localization),
        (224, prepare_for_localization),
        (320, prepare),
        (224, prepare),
    ):
        here, there = work(image, size), work(image, size, device=device)
        assert there.tensor.is_cuda and here.size == there.size
        np.testing.assert_array_equal(here.original_T_input, there.original_T_input)
        atol = 2e-5 if work is prepare_for_localization or int(PIL.__version__.split(".")[0]) < 13 else 1.01 / 127.5
        torch.testing.assert_close(there.tensor.cpu(), here.tensor, atol=atol, rtol=0)
