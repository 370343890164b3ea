"""Structure from motion, image by image: poses by PnP, points by triangulation, both adjusted together as they grow.

The usual incremental scheme (Schoenberger and Frahm, "Structure-from-Motion Revisited", CVPR 2016), on what this
package has anyway. pycolmap's mapper takes its place where it is installed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import poselib
from numpy.typing import NDArray

from mast3r_ros.frames import Camera
from mast3r_ros.geometry import se3
from mast3r_ros.multiview.bundle import FOCALS, Bundle, adjust
from mast3r_ros.multiview.model import Model
from mast3r_ros.multiview.photos import Photo
from mast3r_ros.multiview.tracks import Tracks, join
from mast3r_ros.multiview.triangulation import best_points
from mast3r_ros.multiview.verification import VerifiedPair

Array = NDArray[np.float64]
#: Told how many images are registered, of how many.
Progress = Callable[[int, int], None]

#: The first two images: matches, and parallax in degrees beyond which more does not count.
START_MATCHES, ENOUGH_PARALLAX = 40, 12.0
#: Starts that are tried.
STARTS = 12
#: Parallax of a start, degrees.
LEAST_PARALLAX = 1.5
#: An image is registered with at least this many points, and this share of those it should see.
FEWEST_POINTS, LEAST_SHARE = 20, 0.25
#: Errors up to which a point belongs to an image, pixels of the images that were matched.
POSE_PX, POINT_PX = 6.0, 4.0
#: All is adjusted whenever this many times as many images are registered as last time.
GROWTH = 1.15
#: A model of fewer images says nothing.
FEWEST_IMAGES = 3


class Growing:
    """One component while it grows.

    Args:
        photos: all images.
        pairs: verified ones; those of other components do no harm.
        pixel: side of a pixel of the images that were matched, in pixels of each photo.
    """

    def __init__(self, photos: Sequence[Photo], pairs: Sequence[VerifiedPair], pixel: Sequence[float]) -> None:
        self._photos, self._pairs = photos, pairs
        self.tracks: Tracks = join(pairs, len(photos))
        tracks = self.tracks
        self._pixel = np.asarray(pixel, dtype=np.float64)
        lenses = {name: row for row, name in enumerate(dict.fromkeys(self._lens(n) for n in range(len(photos))))}
        self._lens_of = np.array([lenses[self._lens(n)] for n in range(len(photos))], dtype=np.int64)
        self._focals = np.zeros(len(lenses))
        self._free = np.zeros(len(lenses), bool)
        for photo, row in zip(photos, self._lens_of, strict=True):
            self._focals[row], self._free[row] = photo.camera.focal, not photo.calibrated
        self._uv = np.zeros((len(tracks.track), 2))
        for number, photo in enumerate(photos):
            rows = tracks.image == number
            self._uv[rows] = photo.camera.rays(tracks.xy[rows]) * photo.camera.focal
        self._seen = np.isfinite(self._uv).all(axis=1)  # beyond the lens's model there is no ray
        self.poses = np.tile(np.eye(4), (len(photos), 1, 1))  # camera_T_world
        self.registered = np.zeros(len(photos), bool)
        self._points = np.full((tracks.count, 3), np.nan)
        self._used = np.zeros(len(tracks.track), bool)  # observations that agree with their points

    def _lens(self, number: int) -> str:
        photo = self._photos[number]
        return f"known {photo.camera.focal:.6f}" if photo.calibrated else photo.lens

    # -- the whole way -----------------------------------------------------------------------------

    def grow(self, allowed: NDArray[np.bool_], progress: Progress | None = None) -> bool:
        """Register as many of the allowed images as agree; False where no two of them can begin."""
        for pair in self._starts(allowed):
            if self._start(pair):
                break
            self._forget()
        else:
            return False
        adjusted, tried = 2, set[tuple[int, int]]()
        while True:
            image = self._next(allowed, tried)
            if image is None:
                break
            tried.add((image, int(self.registered.sum())))
            if not self._register(image):
                continue
            self._triangulate()
            if progress is not None:
                progress(int(self.registered.sum()), int(allowed.sum()))
            if self.registered.sum() >= max(adjusted * GROWTH, adjusted + 1):
                adjusted = int(self.registered.sum())
                self._adjust(8)
        for _ in range(3):
            self._adjust(25)
            self._triangulate()
        self._adjust(25)
        return int(self.registered.sum()) >= FEWEST_IMAGES

    def _starts(self, allowed: NDArray[np.bool_]) -> list[VerifiedPair]:
        able = [
            pair
            for pair in self._pairs
            if allowed[pair.i] and allowed[pair.j] and not pair.only_turned and pair.parallax_deg > LEAST_PARALLAX
        ]
        return sorted(able, key=lambda p: -min(len(p), 500) * min(p.parallax_deg, ENOUGH_PARALLAX))[:STARTS]

    def _start(self, pair: VerifiedPair) -> bool:
        self.poses[pair.i], self.poses[pair.j] = np.eye(4), pair.camera_j_T_camera_i
        self.registered[[pair.i, pair.j]] = True
        self._triangulate()
        self._adjust(15)
        return int(np.isfinite(self._points[:, 0]).sum()) >= START_MATCHES

    def _forget(self) -> None:
        self.registered[:], self._points[:], self._used[:] = False, np.nan, False

    # -- images ------------------------------------------------------------------------------------

    def _next(self, allowed: NDArray[np.bool_], tried: set[tuple[int, int]]) -> int | None:
        """The image that sees the model best: points spread over many parts of it."""
        tracks, now = self.tracks, int(self.registered.sum())
        known = self._seen & np.isfinite(self._points[tracks.track, 0]) & ~self.registered[tracks.image]
        known &= allowed[tracks.image]
        sides = np.array([[p.camera.width, p.camera.height] for p in self._photos])[tracks.image[known]]
        cell = (tracks.xy[known] / sides * 12).astype(int).clip(0, 11)
        places = np.unique(np.stack([tracks.image[known], cell[:, 0], cell[:, 1]], axis=1), axis=0)
        score = np.bincount(places[:, 0], minlength=len(self._photos))
        enough = np.bincount(tracks.image[known], minlength=len(self._photos)) >= FEWEST_POINTS
        for image in np.argsort(-score, kind="stable"):
            # An image that failed is tried again when a tenth more images are known.
            before = max((count for number, count in tried if number == image), default=0)
            if enough[image] and (before == 0 or now > 1.1 * before):
                return int(image)
        return None

    def _register(self, image: int) -> bool:
        tracks = self.tracks
        rows = np.flatnonzero((tracks.image == image) & self._seen & np.isfinite(self._points[tracks.track, 0]))
        focal, threshold = float(self._focals[self._lens_of[image]]), POSE_PX * self._pixel[image]
        points = self._points[tracks.track[rows]]
        middle, size = np.median(points, axis=0), float(np.median(np.abs(points - np.median(points, axis=0)))) or 1.0
        found, info = poselib.estimate_absolute_pose(
            self._uv[rows],
            (points - middle) / size,
            {"model": "SIMPLE_PINHOLE", "width": 0, "height": 0, "params": [focal, 0.0, 0.0]},
            {"max_reproj_error": threshold, "max_iterations": 5000, "min_iterations": 200, "seed": 0},
        )
        inlier = np.asarray(info["inliers"], dtype=bool)
        if inlier.sum() < max(FEWEST_POINTS, LEAST_SHARE * len(rows)) or not np.isfinite(found.R).all():
            return False
        self.poses[image] = se3.make(found.R, size * np.asarray(found.t) - found.R @ middle)
        self.registered[image] = True
        self._used[rows] = inlier
        return True

    # -- points ------------------------------------------------------------------------------------

    def _triangulate(self) -> None:
        """Points for tracks without one, and observations that registered images add to those that have one."""
        tracks = self.tracks
        here = self._seen & self.registered[tracks.image]
        has = np.isfinite(self._points[:, 0])
        more = np.flatnonzero(here & has[tracks.track] & ~self._used)
        self._used[more] = self._errors(more) < POINT_PX
        lacking = np.flatnonzero(here & ~has[tracks.track])
        found = best_points(
            self.poses[tracks.image[lacking]],
            self._uv[lacking],
            self._focals[self._lens_of[tracks.image[lacking]]],
            self._pixel[tracks.image[lacking]],
            tracks.track[lacking],
            POINT_PX,
        )
        self._points[found.track] = found.points
        self._used[lacking[found.inlier]] = True

    def _errors(self, rows: NDArray[np.int64]) -> Array:
        """(K,) reprojection errors of observations, in pixels of the images that were matched."""
        off = np.linalg.norm(self._bundle(rows)[0].residuals(), axis=1)
        return np.asarray(off / self._pixel[self.tracks.image[rows]])

    def _bundle(self, rows: NDArray[np.int64]) -> tuple[Bundle, NDArray[np.int64]]:
        """Observations as a bundle of all images, with the tracks that are its points."""
        kept, point = np.unique(self.tracks.track[rows], return_inverse=True)
        return (
            Bundle(
                self.poses,
                self._focals,
                self._lens_of,
                self._free,
                self._points[kept],
                self.tracks.image[rows],
                point.ravel(),
                self._uv[rows],
            ),
            kept,
        )

    def _adjust(self, iterations: int) -> None:
        """Bundle adjustment of everything; then what does not agree goes."""
        rows = np.flatnonzero(self._used)
        if not len(rows):
            return
        bundle, kept = self._bundle(rows)
        images = np.flatnonzero(self.registered)
        place = np.zeros(len(self.poses), np.int64)
        place[images] = np.arange(len(images))
        # A focal length is found once enough images say something of it.
        free = self._free & (np.bincount(self._lens_of[images], minlength=len(self._free)) >= 3)
        small = replace(
            bundle, poses=self.poses[images], lens=self._lens_of[images], free=free, image=place[bundle.image]
        )
        # The residual's unit: pixels of the images that were matched.
        better = adjust(small, iterations, sigma_px=float(np.median(self._pixel[images])))
        self.poses[images], self._points[kept] = better.poses, better.points
        longer = np.array([max(photo.camera.width, photo.camera.height) for photo in self._photos])
        for row in np.flatnonzero(free):
            side = longer[self._lens_of == row].max()
            self._focals[row] = np.clip(better.focals[row], FOCALS[0] * side, FOCALS[1] * side)
        self._filter()

    def _filter(self) -> None:
        tracks = self.tracks
        rows = np.flatnonzero(self._used)
        self._used[rows] = self._errors(rows) < POINT_PX
        rows = np.flatnonzero(self._used)
        centres = -np.einsum("nji,nj->ni", self.poses[:, :3, :3], self.poses[:, :3, 3])
        away = self._points[tracks.track[rows]] - centres[tracks.image[rows]]
        away /= np.linalg.norm(away, axis=1, keepdims=True)
        total = np.zeros((tracks.count, 3))
        np.add.at(total, tracks.track[rows], away)
        count = np.bincount(tracks.track[rows], minlength=tracks.count)
        # Rays that all point the same way leave the distance open: the length of their mean tells how wide they are.
        with np.errstate(invalid="ignore", divide="ignore"):
            spread = np.degrees(2 * np.arccos(np.clip(np.linalg.norm(total, axis=1) / count, 0, 1)))
        bad = np.isfinite(self._points[:, 0]) & ~((count >= 2) & (spread > 1.0))
        self._points[bad] = np.nan
        self._used &= ~bad[tracks.track]

    # -- what comes out ----------------------------------------------------------------------------

    def model(self) -> Model:
        """What was registered."""
        rows = np.flatnonzero(self._used & self.registered[self.tracks.image])
        bundle, kept = self._bundle(rows)
        square = (bundle.residuals() ** 2).sum(axis=1)
        count = np.bincount(bundle.point, minlength=len(kept))
        error = np.sqrt(np.bincount(bundle.point, weights=square, minlength=len(kept)) / np.maximum(count, 1))
        images = np.flatnonzero(self.registered)
        return Model(
            {int(n): self._camera(int(n)) for n in images},
            {int(n): se3.inverse(se3.orthonormalised(self.poses[n])) for n in images},
            bundle.points,
            error,
            bundle.point,
            bundle.image,
            self.tracks.feature[rows],
            self.tracks.xy[rows],
        )

    def _camera(self, image: int) -> Camera:
        camera = self._photos[image].camera
        if self._photos[image].calibrated:
            return camera
        K = camera.K.copy()
        K[0, 0] = K[1, 1] = self._focals[self._lens_of[image]]
        return replace(camera, K=K)


def grow_all(
    photos: Sequence[Photo],
    pairs: Sequence[VerifiedPair],
    pixel: Sequence[float],
    progress: Progress | None = None,
) -> list[Model]:
    """Every component that can be reconstructed, the largest first."""
    models: list[Model] = []
    left = np.ones(len(photos), bool)
    while left.sum() >= FEWEST_IMAGES:
        growing = Growing(photos, [pair for pair in pairs if left[pair.i] and left[pair.j]], pixel)
        if not growing.grow(left, progress):
            break
        models.append(growing.model())
        left &= ~growing.registered
    return sorted(models, key=lambda model: -len(model))
