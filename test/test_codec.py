"""The image codec: golden values written by hand, round trips, and everything a message can get wrong."""

from __future__ import annotations

import array
import struct
import zlib
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from mast3r_ros.errors import CalibrationError, CodecError
from mast3r_ros.io import codec
from mast3r_ros.io.codec.depth import decode_rvl

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def photo(width: int = 64, height: int = 48, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC))


def terrain(width: int = 64, height: int = 48) -> np.ndarray:
    v, u = np.mgrid[:height, :width]
    depth = (1.0 + 0.02 * u + 0.03 * v).astype(np.float32)
    depth[5:9, 7:30] = 0
    return depth


def decode(data: object, encoding: str, width: int, height: int, step: int, big: bool = False) -> np.ndarray:
    return codec.decode_image(data, encoding=encoding, width=width, height=height, step=step, is_bigendian=big)


@pytest.mark.parametrize(
    ("encoding", "pixels", "expected"),
    [
        ("rgb8", [255, 0, 0, 0, 0, 255], [RED, BLUE]),
        ("bgr8", [255, 0, 0, 0, 0, 255], [BLUE, RED]),
        ("8UC3", [255, 0, 0, 0, 0, 255], [BLUE, RED]),
        ("rgba8", [255, 0, 0, 9, 0, 0, 255, 9], [RED, BLUE]),
        ("bgra8", [255, 0, 0, 9, 0, 0, 255, 9], [BLUE, RED]),
        ("8UC4", [255, 0, 0, 9, 0, 0, 255, 9], [BLUE, RED]),
        ("mono8", [7, 200], [(7, 7, 7), (200, 200, 200)]),
        ("8UC1", [7, 200], [(7, 7, 7), (200, 200, 200)]),
        ("mono16", [0x34, 0x12, 0xFF, 0xFF], [(0x12,) * 3, (0xFF,) * 3]),
        ("16UC1", [0x34, 0x12, 0xFF, 0xFF], [(0x12,) * 3, (0xFF,) * 3]),
        ("bgr16", [0, 0, 0, 0, 0, 0xAB, 0, 0, 0, 0xCD, 0, 0], [(0xAB, 0, 0), (0, 0xCD, 0)]),
        # Limited-range BT.601: Y = 235 is white, Y = 16 black.
        ("yuv422", [128, 235, 128, 16], [(255, 255, 255), (0, 0, 0)]),
        ("yuv422_yuy2", [235, 128, 16, 128], [(255, 255, 255), (0, 0, 0)]),
    ],
)
def test_golden_pixels(encoding: str, pixels: list[int], expected: list[tuple[int, int, int]]) -> None:
    image = decode(bytes(pixels), encoding, 2, 1, len(pixels))
    np.testing.assert_array_equal(image, np.array([expected], dtype=np.uint8))


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
@pytest.mark.parametrize("bits", [8, 16])
def test_bayer_patterns_give_back_the_colour_that_was_filtered(pattern: str, bits: int) -> None:
    colour = {"r": 200, "g": 120, "b": 40}
    tile = np.array([[colour[pattern[0]], colour[pattern[1]]], [colour[pattern[2]], colour[pattern[3]]]])
    mosaic = np.tile(tile, (8, 8)).astype(np.uint8)
    if bits == 16:
        mosaic = mosaic.astype("<u2") * 256
    image = decode(mosaic.tobytes(), f"bayer_{pattern}{bits}", 16, 16, 16 * bits // 8)
    np.testing.assert_array_equal(image[4:-4, 4:-4], np.broadcast_to([200, 120, 40], (8, 8, 3)))


def test_nv12_grey_ramp() -> None:
    ramp = np.linspace(16, 235, 16).astype(np.uint8)
    planes = np.concatenate([np.tile(ramp, (8, 1)), np.full((4, 16), 128, np.uint8)])
    image = decode(planes.tobytes(), "nv12", 16, 8, 16)
    assert image.shape == (8, 16, 3)
    assert image[0, 0].max() <= 1 and image[0, -1].min() >= 254
    with pytest.raises(CodecError, match="even"):
        decode(planes.tobytes(), "nv12", 15, 8, 16)


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "rgba8", "bgra8"])
@pytest.mark.parametrize(
    "wrap", [bytes, lambda b: array.array("B", b), memoryview, lambda b: np.frombuffer(b, np.uint8)]
)
def test_round_trip_in_every_buffer_type(encoding: str, wrap: object) -> None:
    data, step = codec.encode_image(photo(), encoding)
    image = decode(wrap(data), encoding, 64, 48, step)  # type: ignore[operator]
    np.testing.assert_array_equal(image, photo())
    assert image.flags.writeable and image.flags.c_contiguous


def test_mono8_is_written_as_luminance() -> None:
    data, step = codec.encode_image(np.full((2, 3, 3), 77, np.uint8), "mono8")
    assert (data, step) == (bytes([77] * 6), 3)


def test_row_padding_is_dropped() -> None:
    rows = np.zeros((48, 64 * 3 + 11), np.uint8)
    rows[:, : 64 * 3] = photo().reshape(48, -1)
    np.testing.assert_array_equal(decode(rows.tobytes(), "rgb8", 64, 48, rows.shape[1]), photo())


def test_big_endian_is_honoured() -> None:
    grey = np.arange(12, dtype=np.uint16).reshape(3, 4) * 5000
    image = decode(grey.astype(">u2").tobytes(), "mono16", 4, 3, 8, big=True)
    np.testing.assert_array_equal(image[..., 0], grey >> 8)
    depth = codec.decode_depth(
        np.array([[1.5, 2.5]], ">f4").tobytes(), encoding="32FC1", width=2, height=1, step=8, is_bigendian=1
    )
    np.testing.assert_array_equal(depth, [[1.5, 2.5]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoding": "rgb9"}, r"'rgb9'.*rgb8.*bayer_rggb8"),
        ({"step": 191}, r"step is 191.*192"),
        ({"step": 0}, r"step is 0"),
        ({"data": b"\0" * 100}, r"truncated: 100 bytes.*192 x 48 = 9216"),
        ({"data": b"\0" * 9999}, r"too long: 9999"),
        ({"data": b""}, "truncated: 0 bytes"),
        ({"data": 5}, "buffer"),
        ({"width": 0}, "empty: 0x48"),
        ({"height": 0}, "empty: 64x0"),
        ({"width": 2**31, "step": 2**33}, "million allowed"),
        ({"encoding": "yuv422", "width": 63}, "even width"),
    ],
)
def test_what_does_not_fit_together_is_named(change: dict[str, object], message: str) -> None:
    message_fields = {"data": photo().tobytes(), "encoding": "rgb8", "width": 64, "height": 48, "step": 192}
    with pytest.raises(CodecError, match=message):
        codec.decode_image(**{**message_fields, **change})  # type: ignore[arg-type]


def test_one_pixel_is_an_image() -> None:
    np.testing.assert_array_equal(decode(bytes(RED), "rgb8", 1, 1, 3), [[RED]])


# Compressed images


def test_png_is_exact_and_jpeg_is_close() -> None:
    np.testing.assert_array_equal(codec.decode_compressed_image(codec.encode_compressed_image(photo(), "png")), photo())
    jpeg = codec.encode_compressed_image(photo(), "jpeg", quality=95)
    decoded = codec.decode_compressed_image(array.array("B", jpeg), "bgr8; jpeg compressed bgr8")
    assert np.abs(decoded.astype(int) - photo()).mean() < 4
    assert len(codec.encode_compressed_image(photo(), "jpeg", quality=20)) < len(jpeg)


@pytest.mark.parametrize("extension", [".webp", ".tiff"])
def test_other_formats_are_read(extension: str) -> None:
    _, data = cv2.imencode(extension, photo()[..., ::-1], [cv2.IMWRITE_WEBP_QUALITY, 101])
    assert np.abs(codec.decode_compressed_image(data.tobytes()).astype(int) - photo()).mean() < 2


@pytest.mark.parametrize("format", ["jpeg", "png"])
@pytest.mark.parametrize("keep", [0.0, 0.01, 0.5, 0.95])
def test_truncated_files_are_refused_instead_of_filled_with_grey(format: str, keep: float) -> None:
    data = codec.encode_compressed_image(photo(320, 240), format)
    with pytest.raises(CodecError, match="truncated|empty|cannot be decoded"):
        codec.decode_compressed_image(data[: int(keep * len(data))], format)


def test_decompression_bombs_are_refused_by_their_header() -> None:
    png = bytearray(codec.encode_compressed_image(photo(), "png"))
    png[16:24] = struct.pack(">II", 60_000, 60_000)
    png[29:33] = struct.pack(">I", zlib.crc32(png[12:29]))
    with pytest.raises(CodecError, match="60000x60000"):
        codec.decode_compressed_image(bytes(png))
    jpeg = bytearray(codec.encode_compressed_image(photo(), "jpeg"))
    start = jpeg.index(b"\xff\xc0")
    jpeg[start + 5 : start + 9] = struct.pack(">HH", 60_000, 60_000)
    with pytest.raises(CodecError, match="60000x60000"):
        codec.decode_compressed_image(bytes(jpeg))


def test_depth_is_not_taken_for_colour_and_rubbish_not_for_an_image() -> None:
    with pytest.raises(CodecError, match="depth"):
        codec.decode_compressed_image(b"x", "16UC1; compressedDepth")
    with pytest.raises(CodecError, match="68 65 6c 6c 6f"):
        codec.decode_compressed_image(b"hello", "jpeg")
    with pytest.raises(CodecError, match="gif"):
        codec.encode_compressed_image(photo(), "gif")
    with pytest.raises(CodecError, match="yuv422"):
        codec.encode_image(photo(), "yuv422")


# Depth


@pytest.mark.parametrize(
    ("encoding", "values", "dtype", "expected"),
    [
        ("16UC1", [0, 1500, 65535], "<u2", [0, 1.5, 0]),
        ("mono16", [0, 1500, 65535], "<u2", [0, 1.5, 0]),
        ("32FC1", [np.nan, 1.5, -1, np.inf], "<f4", [0, 1.5, 0, 0]),
        ("64FC1", [np.nan, 1.5, -np.inf], "<f8", [0, 1.5, 0]),
    ],
)
def test_depth_in_metres_with_zero_for_invalid(
    encoding: str, values: list[float], dtype: str, expected: list[float]
) -> None:
    raw = np.array([values], dtype=dtype)
    depth = codec.decode_depth(raw.tobytes(), encoding=encoding, width=len(values), height=1, step=raw.nbytes)
    assert depth.dtype == np.float32
    np.testing.assert_allclose(depth[0], expected, rtol=1e-6)


@pytest.mark.parametrize(("encoding", "tolerance"), [("16UC1", 0.00051), ("32FC1", 0.0)])
def test_depth_round_trip(encoding: str, tolerance: float) -> None:
    data, step = codec.encode_depth(terrain(), encoding)
    depth = codec.decode_depth(data, encoding=encoding, width=64, height=48, step=step)
    np.testing.assert_allclose(depth, terrain(), atol=tolerance)


def test_depth_beyond_16_bits_becomes_invalid_and_never_wraps() -> None:
    data, _ = codec.encode_depth(np.array([[65.534, 65.535, 70.0, np.nan, np.inf]], np.float32))
    np.testing.assert_array_equal(np.frombuffer(data, "<u2"), [65534, 0, 0, 0, 0])


def test_unknown_depth_encodings_are_refused() -> None:
    with pytest.raises(CodecError, match=r"'rgb8'.*16UC1"):
        codec.decode_depth(b"123", encoding="rgb8", width=1, height=1, step=3)
    with pytest.raises(CodecError, match="8UC1"):
        codec.encode_depth(terrain(), "8UC1")
    with pytest.raises(CodecError, match="truncated"):
        codec.decode_depth(b"123", encoding="16UC1", width=2, height=2, step=4)


def test_compressed_depth_16uc1_round_trip() -> None:
    data = codec.encode_compressed_depth(terrain())
    for format in ("16UC1; compressedDepth", "16UC1; compressedDepth png"):
        np.testing.assert_allclose(codec.decode_compressed_depth(data, format), terrain(), atol=0.00051)
    np.testing.assert_allclose(codec.decode_compressed_depth(data[12:]), terrain(), atol=0.00051)


def test_compressed_depth_32fc1_is_inverse_depth() -> None:
    data = codec.encode_compressed_depth(terrain(), "32FC1", depth_max=10.0)
    depth = codec.decode_compressed_depth(data, "32FC1; compressedDepth png")
    np.testing.assert_allclose(depth, terrain(), rtol=1e-3)
    # By the transport's definition: depth = A / (value - B).
    code = np.array([[0, 2000]], np.uint16)
    by_hand = struct.pack("<iff", 0, 10_100.0, -1009.0) + cv2.imencode(".png", code)[1].tobytes()
    np.testing.assert_allclose(
        codec.decode_compressed_depth(by_hand, "32FC1; compressedDepth"), [[0, 10_100 / 3009]], rtol=1e-6
    )


def rvl(image: np.ndarray) -> bytes:
    """Straightforward RVL encoder, pixel by pixel as the paper has it."""
    nibbles: list[int] = []

    def put(value: int) -> None:
        while True:
            nibble, value = value & 7, value >> 3
            nibbles.append(nibble | (8 if value else 0))
            if not value:
                return

    flat, at, previous = image.reshape(-1).astype(int), 0, 0
    while at < len(flat):
        start = at
        while at < len(flat) and flat[at] == 0:
            at += 1
        put(at - start)
        start = at
        while at < len(flat) and flat[at] != 0:
            at += 1
        put(at - start)
        for value in flat[start:at]:
            delta = int(value) - previous
            put((delta << 1) ^ (delta >> 31))
            previous = int(value)
    nibbles += [0] * (-len(nibbles) % 8)
    words = [int("".join(f"{n:x}" for n in nibbles[i : i + 8]), 16) for i in range(0, len(nibbles), 8)]
    return struct.pack("<ii", image.shape[1], image.shape[0]) + struct.pack(f"<{len(words)}I", *words)


def test_rvl_round_trip_and_damage() -> None:
    raw = np.rint(terrain() * 1000).astype(np.uint16)
    raw[20:30] = np.random.default_rng(0).integers(0, 3000, (10, 64)) * np.random.default_rng(1).integers(
        0, 2, (10, 64)
    )
    data = rvl(raw)
    np.testing.assert_array_equal(decode_rvl(data), raw)
    depth = codec.decode_compressed_depth(struct.pack("<iff", 0, 0, 0) + data, "16UC1; compressedDepth rvl")
    np.testing.assert_allclose(depth, raw * 1e-3, rtol=1e-6)
    np.testing.assert_array_equal(decode_rvl(rvl(np.zeros((3, 5), np.uint16))), np.zeros((3, 5)))
    for cut in (4, 8, 12, len(data) // 2, len(data) - 4):
        with pytest.raises(CodecError, match="truncated"):
            decode_rvl(data[:cut])
    with pytest.raises(CodecError, match="million"):
        decode_rvl(struct.pack("<ii", 2**30, 2**30) + data[8:])


def test_damaged_compressed_depth_is_refused() -> None:
    data = codec.encode_compressed_depth(terrain())
    for broken in (b"", data[:5], data[:12], data[: len(data) // 2]):
        with pytest.raises(CodecError):
            codec.decode_compressed_depth(broken)
    with pytest.raises(CodecError, match="8UC3"):
        codec.decode_compressed_depth(data, "8UC3; compressedDepth")
    with pytest.raises(CodecError, match="16 bits"):
        codec.decode_compressed_depth(codec.encode_compressed_image(photo(), "png"))


@pytest.mark.parametrize("kind", ["png", "rvl", "jpeg"])
def test_random_damage_never_ends_in_anything_but_a_sentence(kind: str) -> None:
    rng = np.random.default_rng(0)
    raw = np.rint(terrain() * 1000).astype(np.uint16)
    whole = {
        "png": codec.encode_compressed_depth(terrain()),
        "rvl": struct.pack("<iff", 0, 0, 0) + rvl(raw),
        "jpeg": codec.encode_compressed_image(photo(), "jpeg"),
    }[kind]
    refused = 0
    for _ in range(200):
        damaged = np.frombuffer(whole, np.uint8).copy()
        damaged[rng.integers(0, len(damaged), 3)] = rng.integers(0, 256, 3)
        try:
            if kind == "jpeg":
                codec.decode_compressed_image(damaged)
            else:
                codec.decode_compressed_depth(damaged, f"16UC1; compressedDepth {kind}")
        except CodecError:
            refused += 1
    assert refused > (190 if kind == "png" else 0)  # PNG carries checksums


# Point clouds


def test_points_are_laid_out_as_pcl_expects() -> None:
    fields, step, data = codec.pack_points(
        np.array([[1.0, 2.0, 3.0]]), np.array([[0x12, 0x34, 0x56]], np.uint8), np.array([0.5])
    )
    assert fields == [("x", 0, 7, 1), ("y", 4, 7, 1), ("z", 8, 7, 1), ("rgb", 12, 7, 1), ("confidence", 16, 7, 1)]
    assert step == 20
    assert data.tobytes() == struct.pack("<fffIf", 1, 2, 3, 0x123456, 0.5)


@pytest.mark.parametrize("count", [0, 1, 100])
def test_points_round_trip(count: int) -> None:
    rng = np.random.default_rng(0)
    xyz, rgb = rng.normal(size=(count, 3)).astype(np.float32), rng.integers(0, 256, (count, 3), dtype=np.uint8)
    confidence = rng.random(count).astype(np.float32)
    for got, expected in zip(
        codec.unpack_points(*codec.pack_points(xyz, rgb, confidence)), (xyz, rgb, confidence), strict=True
    ):
        np.testing.assert_array_equal(got, expected)
    bare = codec.unpack_points(*codec.pack_points(xyz))
    np.testing.assert_array_equal(bare[0], xyz)
    assert bare[1] is None and bare[2] is None


def test_foreign_layouts_are_read() -> None:
    """PCL's own: x, y, z float64 big endian with padding, rgba as uint32."""
    fields = [("rgba", 0, 6, 1), ("x", 8, 8, 1), ("y", 16, 8, 1), ("z", 24, 8, 1)]
    data = struct.pack(">I4xddd", 0xFF010203, 1, 2, 3) * 2
    xyz, rgb, _ = codec.unpack_points(fields, 32, data, is_bigendian=True)
    np.testing.assert_array_equal(xyz, [[1, 2, 3]] * 2)
    np.testing.assert_array_equal(rgb, [[1, 2, 3]] * 2)


def test_unusable_clouds_are_refused() -> None:
    xyz = [("x", 0, 7, 1), ("y", 4, 7, 1), ("z", 8, 7, 1)]
    for fields, step, data in (
        (xyz[:2], 12, b"\0" * 12),
        (xyz, 12, b"\0" * 13),
        (xyz, 0, b""),
        (xyz, 10, b"\0" * 10),
        ([*xyz[:2], ("z", 8, 99, 1)], 12, b"\0" * 12),
        ([*xyz, ("rgb", 8, 2, 1)], 12, b"\0" * 12),
    ):
        with pytest.raises(CodecError):
            codec.unpack_points(fields, step, data)
    with pytest.raises(CodecError, match="as many"):
        codec.pack_points(np.zeros((3, 3)), np.zeros((2, 3), np.uint8))


# Calibration


def info(**change: object) -> SimpleNamespace:
    fields: dict[str, object] = {
        "width": 640,
        "height": 480,
        "distortion_model": "plumb_bob",
        "k": [500.0, 0, 320, 0, 510, 240, 0, 0, 1],
        "d": [0.1, -0.2, 0.001, 0.002, 0.0],
        "r": np.eye(3).ravel(),
        "p": [400.0, 0, 310, 0, 0, 410, 230, 0, 0, 0, 1, 0],
        "binning_x": 0,
        "binning_y": 0,
        "roi": SimpleNamespace(x_offset=0, y_offset=0, width=0, height=0, do_rectify=False),
    }
    return SimpleNamespace(**{**fields, **change})


def test_camera_info_of_ros2_and_ros1() -> None:
    camera = codec.camera_from_info(info())
    assert camera is not None
    assert (camera.width, camera.height, camera.model) == (640, 480, "plumb_bob")
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == (500, 510, 320, 240)
    fields = vars(info())
    ros1 = SimpleNamespace(**{(name.upper() if name in "kdrp" else name): value for name, value in fields.items()})
    other = codec.camera_from_info(ros1)
    assert other is not None and other.same_as(camera)


def test_rectified_images_use_the_projection_matrix() -> None:
    camera = codec.camera_from_info(info(), rectified=True)
    assert camera is not None and not camera.is_distorted
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == (400, 410, 310, 230)


def test_uncalibrated_is_none() -> None:
    assert codec.camera_from_info(info(k=[0.0] * 9)) is None
    assert codec.camera_from_info(info(k=[0.0] * 9, p=[0.0] * 12), rectified=True) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k": [np.nan] * 9}, "K contains NaN"),
        ({"k": [1.0] * 8}, "K has 8 numbers"),
        ({"k": [-500.0, 0, 320, 0, 510, 240, 0, 0, 1]}, "fx = -500"),
        ({"d": [np.inf, 0, 0, 0, 0]}, "NaN or infinity"),
        ({"d": [0.1, 0.1]}, "coefficients, got 2"),
        ({"distortion_model": "banana"}, "banana"),
        ({"width": 0}, "0x480"),
        ({"roi": SimpleNamespace(x_offset=600, y_offset=0, width=100, height=100)}, "leaves the 640x480"),
    ],
)
def test_unusable_calibration_is_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        codec.camera_from_info(info(**change))


def test_missing_size_is_taken_from_the_image() -> None:
    camera = codec.camera_from_info(info(width=0, height=0), image_size=(640, 480))
    assert camera is not None and camera.width == 640


def test_region_of_interest_and_binning_see_the_same_ray() -> None:
    """A point of the world lands where its full-resolution pixel went."""
    full = codec.camera_from_info(info())
    roi = SimpleNamespace(x_offset=100, y_offset=60, width=400, height=300)
    part = codec.camera_from_info(info(roi=roi, binning_x=2, binning_y=2))
    assert full is not None and part is not None
    assert (part.width, part.height) == (200, 150)
    point = np.array([[0.05, -0.1, 1.0]])
    expected = (full.project(point) - [100, 60] + 0.5) / 2 - 0.5
    np.testing.assert_allclose(part.project(point), expected, atol=1e-9)


def test_camera_follows_a_resized_image_but_not_a_cropped_one() -> None:
    camera = codec.camera_from_info(info())
    assert camera is not None
    assert codec.fit_camera_to_image(camera, 640, 480) is camera
    half = codec.fit_camera_to_image(camera, 320, 240)
    assert (half.width, half.fx) == (320, 250)
    with pytest.raises(CalibrationError, match="640x400.*640x480"):
        codec.fit_camera_to_image(camera, 640, 400)
