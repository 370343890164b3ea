"""What a stress run leaves behind: a report for each matcher, and one picture of everything that was asked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2

from mast3r_ros.errors import UserError
from mast3r_ros.frames import Frame
from mast3r_ros.lab.pages.contact_sheet import contact_sheet
from mast3r_ros.lab.pages.report import write_run
from mast3r_ros.lab.runs.gallery import Gallery, Picture
from mast3r_ros.lab.stress.run import Attempt, StressRun
from mast3r_ros.lab.stress.summary import evaluations
from mast3r_ros.localization import PoseEstimate
from mast3r_ros.mapping.keyframe_map import KeyframeMap
from mast3r_ros.matching.base import Matcher


class StressPictures:
    """Match pictures of a run, some for each matcher."""

    def __init__(self, matchers: Sequence[Matcher]) -> None:
        self._galleries = {matcher.name: Gallery(KeyframeMap()) for matcher in matchers}

    def offer(self, attempt: Attempt, frame: Frame, estimate: PoseEstimate, keyframe_map: KeyframeMap) -> None:
        """Show an attempt; see :data:`stress.Watch`."""
        gallery = self._galleries[attempt.matcher]
        gallery.map = keyframe_map
        gallery.offer(attempt.record, frame, estimate)

    def of(self, matcher: str) -> list[Picture]:
        """Those that were kept for a matcher."""
        return self._galleries[matcher].pictures()


def write_stress(folder: Path, run: StressRun, pictures: StressPictures) -> list[Path]:
    """Write conditions.png and what every evaluation writes, in a folder for each matcher where there are several.

    Returns:
        the reports.
    """
    named = ((": ".join(part for part in (name, level) if part), image) for name, level, image in run.examples)
    sheet = contact_sheet([(caption.replace("_", " "), image) for caption, image in named])
    folder.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(folder / "conditions.png"), sheet[..., ::-1]):
        raise UserError(f"cannot write {folder / 'conditions.png'}: is the disk full?")
    asked = Picture(sheet, "What was asked", "one query of every condition, then one negative of every kind")
    found = evaluations(run)
    return [
        write_run(folder / matcher if len(found) > 1 else folder, evaluation, None, [asked, *pictures.of(matcher)])
        for matcher, evaluation in found.items()
    ]
