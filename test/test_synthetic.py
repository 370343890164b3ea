"""Ray-cast worlds: exact geometry, honest sensors, reproducible from their seeds."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import pairwise

import cv2
import numpy as np
import pytest
import torch

from mast3r_ros.errors import UserError
from mast3r_ros.frames import Camera
from mast3r_ros.geometry import se3
from mast3r_ros.lab.synthetic import (
    FAMILIES,
    CameraNoise,
    DepthNoise,
    LightingSettings,
    Material,
    OdometryNoise,
    Renderer,
    RenderSettings,
    RoomSettings,
    SequenceSettings,
    TourSettings,
    Trajectory,
    World,
    WorldBuilder,
    drifting,
    exposed,
    make_room,
    measured,
    mounted_camera,
    render_sequence,
    tour,
)
from mast3r_ros.lab.synthetic.lighting import lit
from mast3r_ros.lab.synthetic.raycast import intersect
from mast3r_ros.lab.synthetic.textures import flat, grain
from mast3r_ros.lab.synthetic.world import FACES

pytestmark = pytest.mark.usefixtures("one_thread")

VGA = Camera.pinhole(640, 480, 525.0, 525.0, 319.5, 239.5)
SMALL = Camera.pinhole(160, 120, 130.0, 130.0, 79.5, 59.5)


def look_at(eye: tuple[float, float, float], target: tuple[float, float, float]) -> np.ndarray:
    forward = np.subtract(target, eye).astype(float)
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0, 0, 1.0])
    right /= np.linalg.norm(right)
    return se3.make(np.stack([right, np.cross(forward, right), forward], axis=1), eye)


def bare_room(*fill, size=(6.0, 5.0, 3.0), rng_seed: int = 0) -> World:
    """A grey room; each ``fill`` puts something in it."""
    builder = WorldBuilder(np.random.default_rng(rng_seed), grain())
    grey = Material(builder.atlas.add(flat((128, 128, 128))), grain=0.0)
    builder.shell(size, dict.fromkeys(FACES, grey))
    for put in fill:
        put(builder, grey)
    builder.at(0, 0).light((0, 0, size[2] - 0.05), (0.3, 0, 0), (0, 0.3, 0), (0, 0, -1), (5, 5, 5))
    return lit(builder.build(size, "bare", rng_seed))


@cache
def furnished(family: str) -> World:
    """A room of that family, made once: it takes seconds."""
    return make_room(family, 4)


@pytest.fixture(scope="module")
def living() -> World:
    return make_room("living", 5)


@pytest.fixture(scope="module")
def living_tour(living: World) -> Trajectory:
    return tour(living, 0)


# ----------------------------------------------------------------------------------------------- geometry


def test_depth_of_the_room_shell_is_exact() -> None:
    pose = look_at((-1.0, 0.5, 1.4), (2.0, 1.0, 1.0))
    views = Renderer(bare_room()).render(pose, VGA)
    rays = np.concatenate([VGA.pixel_rays, np.ones((480, 640, 1))], axis=-1) @ pose[:3, :3].T
    with np.errstate(divide="ignore"):
        walls = np.where(rays > 0, np.array([3, 2.5, 3]), np.array([-3, -2.5, 0])) - pose[:3, 3]
        expected = (walls / rays).min(axis=-1)
    np.testing.assert_allclose(views.depth[0].numpy(), expected, atol=2e-5)


def test_depth_of_a_sphere_and_a_cylinder_is_exact() -> None:
    world = bare_room(
        lambda b, m: b.sphere((1.0, 0.6, 1.2), (0.8, 0.8, 0.8), m),
        lambda b, m: b.cylinder((1.0, -0.8, 0.9), 0.3, 1.8, m),
    )
    pose = look_at((-2.0, 0.0, 1.5), (1.0, 0.0, 1.1))
    views = Renderer(world).render(pose, VGA)
    depth, seen = views.depth[0].double().numpy(), views.primitive[0].numpy()
    points = se3.apply(pose, VGA.backproject(depth))
    assert (seen == 1).sum() > 5000 and (seen == 2).sum() > 5000
    radius = np.linalg.norm(points[seen == 1] - [1.0, 0.6, 1.2], axis=1)
    np.testing.assert_allclose(radius, 0.4, atol=2e-5)
    on_cylinder = points[seen == 2]
    side = np.abs(np.linalg.norm(on_cylinder[:, :2] - [1.0, -0.8], axis=1) - 0.3) < 2e-5
    cap = np.abs(on_cylinder[:, 2] - 1.8) < 2e-5
    assert (side | cap).all()


def test_tiles_miss_no_primitive(living: World, living_tour: Trajectory) -> None:
    """The culled caster agrees with every ray against every primitive."""
    poses = living_tour.map_T_camera[:: len(living_tour) // 3]
    renderer = Renderer(living)
    views = renderer.render(poses, SMALL)
    shapes = renderer.shapes
    for pose, depth in zip(poses, views.depth, strict=True):
        T = torch.tensor(pose, dtype=torch.float32)
        rays = torch.tensor(SMALL.pixel_rays.reshape(-1, 2), dtype=torch.float32)
        rays = T[:3, :3] @ torch.cat([rays, torch.ones(len(rays), 1)], dim=1).T
        origin = (shapes.unit_A @ T[:3, 3])[:, :, None] + shapes.unit_b[:, :, None]
        every = intersect(shapes.kind, shapes.unit_A @ rays, origin).amin(dim=0).view(120, 160)
        close = (depth - every).abs() < 1e-4 * every
        # Rays that graze a silhouette may fall on either side of it in float32.
        assert close.float().mean() > 0.9995


def test_reprojection_between_views(living: World, living_tour: Trajectory) -> None:
    pose_a, pose_b = living_tour.map_T_camera[100], living_tour.map_T_camera[104]
    views = Renderer(living).render(np.stack([pose_a, pose_b]), VGA)
    depth, images = views.depth.numpy(), views.images.numpy().astype(np.float32)
    in_b = se3.apply(se3.inverse(pose_b) @ pose_a, VGA.backproject(depth[0])).reshape(-1, 3)
    xy = VGA.project(in_b).reshape(480, 640, 2).astype(np.float32)
    seen_depth = cv2.remap(depth[1], xy[..., 0], xy[..., 1], cv2.INTER_NEAREST, borderValue=0.0)
    z = in_b[:, 2].reshape(480, 640)
    inside = seen_depth > 0
    visible = inside & (np.abs(seen_depth - z) < 0.01 * z)
    assert inside.mean() > 0.5
    assert visible.sum() > 0.93 * inside.sum()
    colour = cv2.remap(images[1], xy[..., 0], xy[..., 1], cv2.INTER_LINEAR)
    difference = np.abs(colour - images[0]).max(axis=-1)[visible]
    assert np.median(difference) < 4 and np.percentile(difference, 90) < 20


def test_normals_point_to_the_camera_and_fit_the_depth() -> None:
    world = bare_room(lambda b, m: b.box((1.0, 0.0, 1.0), (0.6, 0.8, 1.1), m, yaw=0.5, tilt=0.2))
    pose = look_at((-2.0, 0.3, 1.6), (1.0, 0.0, 1.0))
    views = Renderer(world, settings=RenderSettings(normals=True)).render(pose, VGA)
    points, normal = VGA.backproject(views.depth[0].numpy()), views.normal[0].numpy()
    assert ((normal * points).sum(axis=-1) < 0).all()
    across, down = np.diff(points, axis=1)[:-1], np.diff(points, axis=0)[:, :-1]
    slanted = np.abs((across * normal[:-1, :-1]).sum(axis=-1)) + np.abs((down * normal[:-1, :-1]).sum(axis=-1))
    assert (slanted < 1e-4).mean() > 0.97


@pytest.mark.parametrize(
    ("model", "D"),
    [("plumb_bob", [-0.28, 0.09, 0.001, -0.0007, -0.01]), ("equidistant", [0.02, -0.01, 0.004, -0.001])],
)
def test_lens_distortion_is_honoured(living: World, living_tour: Trajectory, model: str, D: list[float]) -> None:
    bent = Camera(320, 240, [[200, 0, 161], [0, 201, 118], [0, 0, 1]], model, D)
    straight = Camera.pinhole(1400, 1100, 400, 400, 700, 550)
    renderer = Renderer(living, settings=RenderSettings(smooth_edges=False))
    pose = living_tour.map_T_camera[40]
    seen = renderer.render(pose, bent).depth[0].numpy()
    through = straight.project(np.concatenate([bent.pixel_rays, np.ones((240, 320, 1))], axis=-1).reshape(-1, 3))
    xy = through.reshape(240, 320, 2).astype(np.float32)
    reference = renderer.render(pose, straight).depth[0].numpy()
    expected = cv2.remap(reference, xy[..., 0], xy[..., 1], cv2.INTER_NEAREST, borderValue=0.0)
    inside = expected > 0
    assert inside.mean() > 0.9
    assert (np.abs(seen - expected)[inside] < 0.02 * expected[inside]).mean() > 0.97


def test_pixels_without_a_ray_have_no_depth() -> None:
    folded = Camera(320, 240, [[90, 0, 160], [0, 90, 120], [0, 0, 1]], "plumb_bob", [-0.4, 0.0, 0, 0])
    blind = ~np.isfinite(folded.pixel_rays).all(axis=-1)
    depth = Renderer(bare_room()).render(look_at((0, 0, 1.5), (2, 0.1, 1.4)), folded).depth[0].numpy()
    assert blind.any() and not blind.all()
    np.testing.assert_array_equal(depth == 0, blind)


# ----------------------------------------------------------------------------------------------- pictures


def test_pictures_hang_upright_and_are_not_mirrored() -> None:
    image = np.full((64, 64, 3), 30, np.uint8)
    image[:32, :32, 0], image[:32, 32:, 1], image[32:, :32, 2] = 250, 250, 250

    def hang(builder: WorldBuilder, grey: Material) -> None:
        shown = Material(builder.atlas.add(image), None, grain=0.0)
        for x, y, yaw in ((0, -2.49, 0.0), (2.99, 0, np.pi / 2), (0, 2.49, np.pi), (-2.99, 0, -np.pi / 2)):
            builder.at(x, y, 1.5, yaw).box((0, 0, 0), (1, 0.02, 1), grey, faces={"+y": shown})

    renderer = Renderer(bare_room(hang))
    for target in ((0, -2.5, 1.5), (3, 0, 1.5), (0, 2.5, 1.5), (-3, 0, 1.5)):
        eye = (target[0] / 3, target[1] / 3, 1.5)
        seen = renderer.render(look_at(eye, target), SMALL).images[0].numpy()
        corners = [seen[60 + dy, 80 + dx].argmax() for dy, dx in ((-15, -15), (-15, 15), (15, -15))]
        assert corners == [0, 1, 2]


def test_a_table_throws_a_soft_shadow() -> None:
    world = bare_room(lambda b, m: b.box((0.0, 0.0, 0.8), (1.2, 1.2, 0.05), m))
    image = Renderer(world).render(look_at((-2.5, 0.01, 1.6), (0, 0, 0.0)), VGA).radiance[0].mean(dim=-1).numpy()
    under = VGA.project(se3.apply(se3.inverse(look_at((-2.5, 0.01, 1.6), (0, 0, 0.0))), [[-0.2, 0, 0], [-1.2, 0, 0]]))
    dark, bright = (image[int(v), int(u)] for u, v in under)
    assert dark < 0.6 * bright


def test_edges_are_smooth() -> None:
    def paint(builder: WorldBuilder, grey: Material) -> None:
        white = Material(builder.atlas.add(flat((255, 255, 255))), grain=0.0, emission=3.0)
        builder.box((2.0, 0.0, 1.5), (0.1, 1.0, 1.0), white)

    world, pose = bare_room(paint), look_at((-2.0, 0.2, 1.9), (2.0, 0.0, 1.5))
    counts = []
    for smooth in (False, True):
        image = (
            Renderer(world, settings=RenderSettings(smooth_edges=smooth)).render(pose, SMALL).radiance[0].mean(dim=-1)
        )
        counts.append(int(((image > 1.3 * image.median()) & (image < 0.8 * image.max())).sum()))
    assert counts[1] > counts[0] + 40


@pytest.mark.parametrize("family", ["living", "office", "kitchen", "corridor", "warehouse"])
def test_rooms_have_many_repeatable_features(family: str) -> None:
    world = furnished(family)
    trajectory = tour(world, 0)
    starts = np.linspace(0, len(trajectory) - 6, 4).astype(int)
    poses = trajectory.map_T_camera[np.stack([starts, starts + 4], axis=1).ravel()]
    views = Renderer(world).render(poses, VGA)
    counts, matched = [], []
    for a in range(0, len(poses), 2):
        features = [_sift(views.images[a + k].numpy()) for k in range(2)]
        counts += [len(f[0]) for f in features]
        matched.append(_true_matches(features, poses[a : a + 2], views.depth[a].numpy()))
    assert np.median(counts) > 500
    assert np.median(matched) > 150


def _sift(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    points, descriptors = cv2.SIFT_create().detectAndCompute(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), None)
    return np.array([p.pt for p in points]).reshape(-1, 2), np.sqrt(
        descriptors / descriptors.sum(axis=1, keepdims=True)
    )


def _true_matches(features: list[tuple[np.ndarray, np.ndarray]], poses: np.ndarray, depth: np.ndarray) -> int:
    """Ratio-test matches that the exact geometry confirms within 3 pixels."""
    (xy_a, describe_a), (xy_b, describe_b) = features
    pairs = [m for m, n in cv2.BFMatcher().knnMatch(describe_a, describe_b, k=2) if m.distance < 0.8 * n.distance]
    a, b = xy_a[[m.queryIdx for m in pairs]], xy_b[[m.trainIdx for m in pairs]]
    z = depth[np.rint(a[:, 1]).astype(int), np.rint(a[:, 0]).astype(int)]
    points = np.concatenate([VGA.rays(a) * z[:, None], z[:, None]], axis=1)
    expected = VGA.project(se3.apply(se3.inverse(poses[1]) @ poses[0], points))
    return int((np.linalg.norm(expected - b, axis=1) < 3).sum())


def test_stress_rooms_are_what_they_claim() -> None:
    bland = make_room("textureless", 1)
    image = Renderer(bland).render(tour(bland, 0).map_T_camera[30], VGA).images[0].numpy()
    assert len(cv2.SIFT_create().detect(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))) < 60
    twin = make_room("repeated", 1)
    pose = look_at((0.4, 0.2, 1.2), (2.0, 1.0, 1.0))
    half_turn = se3.make(np.diag([-1.0, -1.0, 1.0]), [0, 0, 0])
    one, other = Renderer(twin).render(np.stack([pose, half_turn @ pose]), SMALL).images.numpy().astype(int)
    assert np.median(np.abs(one - other)) <= 6


# ------------------------------------------------------------------------------------------- reproducibility


def test_a_seed_gives_the_same_room_again(living: World) -> None:
    first, again, other = furnished("kitchen"), make_room("kitchen", 4), furnished("living")
    for name in ("kind", "centre", "axes", "look", "look_index", "light"):
        torch.testing.assert_close(getattr(again, name), getattr(first, name), rtol=0, atol=0)
    assert torch.equal(again.atlas.texels, first.atlas.texels)
    assert again.exposure == first.exposure and again.names == first.names
    assert len(other) != len(living) or not torch.equal(other.centre, living.centre)


def test_worlds_rendered_together_look_as_they_do_alone(living: World) -> None:
    plain = bare_room()
    pose = look_at((-1.0, 0.5, 1.4), (2.0, 1.0, 1.0))
    together = Renderer([plain, living]).render(np.stack([pose, pose, pose]), [SMALL] * 3, world=[1, 0, 1])
    assert torch.equal(together.images[0], together.images[2])
    for world, view in ((living, 0), (plain, 1)):
        alone = Renderer(world).render(pose, SMALL)
        torch.testing.assert_close(together.depth[view], alone.depth[0], rtol=0, atol=0)
        assert (together.images[view].int() - alone.images[0].int()).abs().max() <= 1


def test_objects_can_be_carried_away(living: World) -> None:
    name = next(n for n in living.names if n.startswith("table"))
    fewer = living.without(name)
    assert len(fewer) < len(living)
    middle = living.centre[living.group == living.names.index(name)].mean(dim=0).numpy()
    pose = look_at((middle[0] - 1.2, middle[1], 1.5), (middle[0], middle[1] + 0.01, 0.3))
    before, after = (Renderer(w).render(pose, SMALL).depth[0] for w in (living, fewer))
    assert (after - before).max() > 0.1 and (after - before).min() > -1e-5


def test_objects_can_be_moved() -> None:
    def ball(builder: WorldBuilder, grey: Material) -> None:
        builder.at(1.0, 0.0, name="ball").sphere((0, 0, 1.0), (0.4, 0.4, 0.4), grey)

    world = bare_room(ball)
    motion = se3.exp([0.0, 0.5, 0.0, 0.0, 0.0, np.pi / 2])
    moved = world.moved("ball 1", motion)
    assert moved.clearance([0.0, 1.5, 1.0]) < 0 < moved.clearance([1.0, 0.0, 1.0])
    assert torch.equal(moved.centre[0], world.centre[0]), "the room stays where it is"
    with pytest.raises(KeyError, match="no 'cube 1'"):
        world.moved("cube 1", motion)


def test_a_mirror_shows_the_room_as_the_mirrored_camera_sees_it() -> None:
    def mirror(builder: WorldBuilder, grey: Material) -> None:
        builder.at(0.0, 2.5, yaw=np.pi, name="mirror")
        shiny = Material(grey.texture, grain=0.0, reflects=1.0)
        builder.box((0, 0.005, 1.5), (4.0, 0.01, 2.8), grey, faces={"+y": shiny})

    def posts(builder: WorldBuilder, grey: Material) -> None:
        for k, x in enumerate((-1.0, 0.2, 1.3)):
            builder.at(x, -1.5 + 0.4 * k, name="post").cylinder((0, 0, 0.8), 0.15, 1.6, grey)

    pose = look_at((0.3, 0.5, 1.4), (0.4, 2.5, 1.3))
    seen = Renderer(bare_room(mirror, posts)).render(pose, SMALL)
    # The camera behind the mirror has the left hand of the one before it: its rays are mirrored, not turned.
    flip = se3.make(np.diag([1.0, -1.0, 1.0]), [0, 2 * 2.49, 0])
    rays = np.concatenate([SMALL.pixel_rays, np.ones((120, 160, 1))], axis=2)
    points = se3.apply(flip @ pose, rays * seen.depth[0].numpy()[..., None].astype(float))
    middle = (slice(30, 90), slice(30, 130))
    world = bare_room(posts)
    assert np.abs(world.clearance(points[middle])).max() < 0.08, "mirrored back, the picture's surface is the room's"
    assert np.median(np.abs(world.clearance(points[middle]))) < 1e-3
    assert float(seen.depth[0].min()) > 1.9 and float(seen.depth[0].max()) > 4


def test_glass_shows_what_is_behind_it_and_a_little_of_what_is_before_it() -> None:
    def pane(builder: WorldBuilder, grey: Material) -> None:
        builder.at(0.0, 0.0, name="pane")
        builder.box((0, 0, 1.5), (3.0, 0.01, 2.9), Material(grey.texture, reflects=0.25, transmits=0.7))

    def sign(builder: WorldBuilder, grey: Material) -> None:
        black = Material(builder.atlas.add(flat((5, 5, 5))), grain=0.0)
        builder.at(0.0, 2.48).box((0, 0, 1.5), (1.0, 0.01, 1.0), black)

    pose = look_at((0.0, -1.5, 1.5), (0.001, 2.5, 1.5))
    without, through = (Renderer(bare_room(*fill)).render(pose, SMALL) for fill in ((sign,), (sign, pane)))
    torch.testing.assert_close(through.depth, without.depth, rtol=1e-4, atol=1e-4)
    contrast = [float(v.radiance[0, 60, 30].mean() - v.radiance[0, 60, 80].mean()) for v in (without, through)]
    assert contrast[1] == pytest.approx(0.7 * contrast[0], rel=0.2)
    assert through.radiance[0, 60, 80].mean() > 2 * without.radiance[0, 60, 80].mean(), "the pane mirrors the room"


def test_rooms_of_one_make_differ_in_layout_and_pictures_only() -> None:
    quick = RoomSettings(lighting=LightingSettings(light_samples=1, sky_samples=1))
    one, other = (make_room("living", seed, replace(quick, make=7, visitors=1)) for seed in (1, 2))
    assert one.size != other.size and "visitor 1" in one.names
    pieces = [{t.numpy().tobytes() for t in _textures(world)} for world in (one, other)]
    shared = len(pieces[0] & pieces[1])
    assert shared >= 5 and len(pieces[0] - pieces[1]) >= 5


def _textures(world: World) -> list[torch.Tensor]:
    """The finest level of every texture."""
    sides = (1 << world.atlas.log2_size).tolist()
    return [world.atlas.texels[s : s + side * side] for s, side in zip(world.atlas.start.tolist(), sides, strict=True)]


def test_a_family_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UserError, match="castle.*living"):
        make_room("castle", 0)
    assert set(FAMILIES) >= {
        "living",
        "office",
        "kitchen",
        "corridor",
        "warehouse",
        "textureless",
        "repeated",
        "planar",
        "glass",
    }


def test_night_is_dark() -> None:
    day, night = make_room("planar", 2), make_room("planar", 2, RoomSettings(light=0.1))
    pose = look_at((0, -1, 1.5), (0.3, 2.5, 1.5))
    bright, dark = (Renderer(w).render(pose, SMALL).images.float().mean() for w in (day, night))
    assert dark < 0.5 * bright


# ---------------------------------------------------------------------------------------------- trajectories


@pytest.mark.parametrize("mode", ["robot", "handheld"])
@pytest.mark.parametrize("family", ["living", "corridor", "warehouse"])
def test_tours_stay_in_free_space_and_within_their_limits(family: str, mode: str) -> None:
    world = furnished(family)
    settings = TourSettings(mode=mode, speed_mps=0.4, turn_rate_rps=0.6, clearance_m=0.3)
    trajectory = tour(world, 1, settings)
    assert len(trajectory) > 50
    assert world.floor_clearance(trajectory.map_T_base[:, :2, 3], 0.05, 1.1).min() > 0.25
    assert world.clearance(trajectory.map_T_camera[:, :3, 3]).min() > 0.1
    steps = [se3.log(se3.inverse(a) @ b) for a, b in pairwise(trajectory.map_T_base)]
    speed, turn = (
        np.linalg.norm(np.stack(steps)[:, part], axis=1) * settings.rate_hz for part in (slice(3), slice(3, 6))
    )
    slack = (0.01, 0.01) if mode == "robot" else (0.15, 0.45)
    assert speed.max() < 0.4 + slack[0] and turn.max() < 0.6 + slack[1]
    assert speed.max() > 0.3 and turn.max() > 0.4
    if mode == "robot":
        assert np.allclose(trajectory.map_T_base[:, 2, :], [0, 0, 1, 0])


def test_the_camera_is_mounted_as_asked() -> None:
    base_T_camera = mounted_camera(height_m=0.7, forward_m=0.2, tilt_deg=15.0)
    np.testing.assert_allclose(base_T_camera[:3, 3], [0.2, 0.0, 0.7])
    forward, down = base_T_camera[:3, 2], base_T_camera[:3, 1]
    np.testing.assert_allclose(forward, [np.cos(np.radians(15)), 0, -np.sin(np.radians(15))], atol=1e-12)
    assert down[2] < -0.9
    assert np.isclose(np.linalg.det(base_T_camera[:3, :3]), 1)


def test_tours_differ_by_seed_and_last_as_long_as_asked(living: World) -> None:
    settings = TourSettings(duration_s=20.0, rate_hz=5.0)
    one, same, other = tour(living, 1, settings), tour(living, 1, settings), tour(living, 2, settings)
    assert len(one) == 100 and one.stamps_ns[-1] == 19_800_000_000
    np.testing.assert_array_equal(one.map_T_base, same.map_T_base)
    assert np.abs(one.map_T_base - other.map_T_base).max() > 0.3


def test_a_handheld_camera_keeps_its_target_in_view() -> None:
    world = make_room("planar", 0)
    target = (0.0, 2.5, 1.5)
    trajectory = tour(world, 0, TourSettings(mode="handheld", look_at=target))
    seen = [se3.apply(se3.inverse(T), target) for T in trajectory.map_T_camera]
    assert all(p[2] > 0 and np.abs(p[:2] / p[2]).max() < 0.35 for p in seen)


def test_a_room_without_space_is_refused(living: World) -> None:
    with pytest.raises(UserError, match="no free floor"):
        tour(living, 0, TourSettings(clearance_m=2.5))
    with pytest.raises(UserError, match="mode 'flying'"):
        TourSettings(mode="flying")


# --------------------------------------------------------------------------------------------------- sensors


def test_odometry_drifts_plausibly_and_smoothly(living_tour: Trajectory) -> None:
    truth = living_tour.map_T_base
    length = np.linalg.norm(np.diff(truth[:, :3, 3], axis=0), axis=1).sum()
    real = np.linalg.inv(truth[:-1]) @ truth[1:]
    ends = []
    for seed in range(40):
        odom = drifting(truth, OdometryNoise(), np.random.default_rng(seed))
        np.testing.assert_array_equal(odom[0], np.eye(4))
        assert np.abs(odom[:, 2, 3]).max() < 1e-9
        believed = np.linalg.inv(odom[:-1]) @ odom[1:]
        assert np.linalg.norm((np.linalg.inv(believed) @ real)[:, :3, 3], axis=1).max() < 0.02
        ends.append(se3.pose_error(truth[0] @ odom[-1], truth[-1])[0])
    assert 0.003 * length < np.median(ends) < 0.05 * length
    perfect = drifting(truth, OdometryNoise(0, 0, 0, 0, 0), np.random.default_rng(0))
    np.testing.assert_allclose(truth[0] @ perfect, truth, atol=1e-9)


def test_depth_noise_grows_with_the_square_and_leaves_holes() -> None:
    rays = SMALL.pixel_rays
    facing = np.broadcast_to(np.array([0, 0, -1.0], np.float32), (120, 160, 3))
    spread = []
    for z in (1.0, 2.0, 4.0):
        depth = measured(np.full((120, 160), z, np.float32), facing, rays, DepthNoise(), np.random.default_rng(0))
        assert (depth > 0).all()
        np.testing.assert_allclose(depth * 1000, np.rint(depth * 1000), atol=1e-3)
        spread.append(depth.std())
    assert spread[1] / spread[0] == pytest.approx(4, rel=0.15) and spread[2] / spread[1] == pytest.approx(4, rel=0.1)
    far = measured(np.full((120, 160), 9.0, np.float32), facing, rays, DepthNoise(), np.random.default_rng(0))
    assert not far.any()
    flat_ = np.broadcast_to(np.array([0, -1.0, 0], np.float32), (120, 160, 3))
    grazing = measured(np.full((120, 160), 2.0, np.float32), flat_, rays, DepthNoise(), np.random.default_rng(0))
    assert not grazing[55:65].any() and grazing[:20].all()
    step = np.full((120, 160), 1.0, np.float32)
    step[:, 80:] = 3.0
    edge = measured(step, facing, rays, DepthNoise(edge_holes=1.0), np.random.default_rng(0))
    assert not edge[:, 79:81].any() and edge[:, :78].all() and edge[:, 82:].all()


def test_camera_noise_behaves_like_a_camera() -> None:
    light = torch.full((120, 160, 3), 0.4)
    rng = np.random.default_rng
    ideal = exposed(light, CameraNoise.none(), rng(0))
    assert np.ptp(ideal) == 0
    usual = exposed(light, CameraNoise(exposure_jitter=0.0), rng(0)).astype(float)
    assert usual[55:65, 75:85].mean() > usual[:10, :10].mean() + 3
    dim = CameraNoise(exposure=0.05, gain=20.0, vignetting=0.0, exposure_jitter=0.0)
    dark = exposed(light, dim, rng(0)).astype(float)
    assert dark.mean() == pytest.approx(ideal.mean(), abs=4)
    assert dark.std() > 3 * usual[55:65, 75:85].std()
    packed = exposed(torch.rand(120, 160, 3), CameraNoise(jpeg_quality=50), rng(0))
    assert packed.shape == (120, 160, 3) and packed.dtype == np.uint8


def test_a_sequence_carries_truth_noise_and_drift(living: World, living_tour: Trajectory) -> None:
    short = Trajectory(living_tour.stamps_ns[60:64], living_tour.map_T_base[60:64], living_tour.base_T_camera)
    settings = SequenceSettings(seed=3, start_ns=10**9)
    moments = list(render_sequence(living, short, SMALL, settings))
    again = list(render_sequence(living, short, SMALL, settings))
    exact = list(render_sequence(living, short, SMALL, SequenceSettings(depth_noise=None)))
    assert len(moments) == 4
    for k, (moment, same, truth) in enumerate(zip(moments, again, exact, strict=True)):
        frame = moment.posed.frame
        assert frame.stamp_ns == short.stamps_ns[k] + 10**9
        np.testing.assert_allclose(moment.posed.map_T_camera, moment.map_T_base @ short.base_T_camera)
        np.testing.assert_array_equal(frame.image, same.posed.frame.image)
        np.testing.assert_array_equal(frame.depth, same.posed.frame.depth)
        np.testing.assert_array_equal(truth.posed.frame.depth, truth.exact_depth)
        seen = frame.depth > 0
        assert 0.5 < seen.mean() < 1
        error = np.abs(frame.depth - moment.exact_depth)[seen]
        assert 1e-4 < np.median(error) < 0.02
    assert not np.allclose(moments[-1].odom_T_base, moments[-1].map_T_base)


def test_motion_blur_follows_the_motion(living: World, living_tour: Trajectory) -> None:
    turns = [se3.angle(se3.inverse(a) @ b) for a, b in pairwise(living_tour.map_T_base)]
    k = int(np.argmax(turns))
    part = slice(k, k + 2)
    fast = Trajectory(living_tour.stamps_ns[part], living_tour.map_T_base[part], living_tour.base_T_camera)
    sharpness = []
    for blur in (0.0, 0.05):
        noise = CameraNoise(exposure_jitter=0.0, photons=np.inf, read_noise=0.0, blur_s=blur, blur_steps=6)
        image = next(iter(render_sequence(living, fast, VGA, SequenceSettings(camera_noise=noise)))).posed.frame.image
        sharpness.append(np.abs(np.diff(image.astype(float), axis=1)).mean())
    assert sharpness[1] < 0.8 * sharpness[0]
