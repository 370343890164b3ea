"""All checks of a matcher, and what they found.

for finding in check_by_name("sift"):
    print(finding.name, finding.passed, finding.sentence)
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mast3r_ros.errors import UserError
from mast3r_ros.lab.conformance import ability, contract, features
from mast3r_ros.lab.conformance.scene import CheckScene, make_scene
from mast3r_ros.matching.base import Matcher
from mast3r_ros.matching.registry import create, factory_of

#: Looks for faults: a sentence for each one.
MatcherCheck = Callable[[Matcher, CheckScene], Iterator[str]]

#: Name of each check, the check, and what is true where it finds no fault.
CHECKS: tuple[tuple[str, MatcherCheck, str], ...] = (
    ("members", contract.members, "name, signature, describe, local_descriptors and match are there"),
    ("signature", features.signature, "the signature can be the name of a folder, and stays the same"),
    ("features", features.arrays, "features are named arrays"),
    ("deterministic", features.deterministic, "describing a frame again gives the same features"),
    ("cache", features.survive_the_cache, "features come back from the map's cache as they were"),
    ("descriptors", features.descriptors, "retrieval gets (N, D) float32 descriptors of one length D"),
    ("matches", contract.one_for_each_reference, "match gives well-formed Matches for each reference, in order"),
    (
        "points",
        contract.points_are_where_they_are_seen,
        "points lie in the keyframe's camera frame, where it sees them",
    ),
    ("pixels", contract.pixels_are_inside, "matched pixels lie inside their images"),
    ("unknowns", contract.missing_depth_or_camera, "frames without depth or camera are described and matched"),
    ("odd images", contract.odd_images, "blank, tiny, long and thin images raise nothing"),
    ("inputs", contract.inputs_are_left_alone, "frames and features are not written to"),
    ("capabilities", ability.declarations, "the declared capabilities fit together and to the methods"),
    ("landmarks", ability.landmarks_are_on_the_surface, "landmarks, where declared, lie on the surface"),
    ("pixel matches", ability.pixel_matches, "match_pixels, where declared, works without any depth"),
    (
        "depth and focal",
        ability.depth_and_focal,
        "predict_depth and estimate_focal, where declared, give usable numbers",
    ),
)

#: Options that say how to compute, not what: no features depend on them, or trying them takes minutes.
NOT_TRIED = ("device", "device_memory", "dtype", "compile", "checkpoint")


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        name: of the check.
        passed: whether the contract is kept.
        sentence: what holds, or what is wrong and where.
    """

    name: str
    passed: bool
    sentence: str


def check_matcher(matcher: Matcher, others: Sequence[Matcher] = (), only: Collection[str] = ()) -> list[Finding]:
    """Run a matcher through all checks. Takes seconds, for a large network on a CPU a minute.

    Args:
        others: matchers of the same class with other options: where features differ, signatures must.
        only: names of the checks to run; all by default.

    Returns:
        at least one finding for each check; one for each fault.
    """
    scene = make_scene()
    findings: list[Finding] = []
    for name, check, holds in CHECKS:
        if only and name not in only:
            continue
        findings += _findings(name, lambda check=check: check(matcher, scene), holds)  # type: ignore[misc]
        if name == "members" and not findings[-1].passed:
            return findings  # nothing else can be asked for
    different = "other features have another signature"
    if only and "options" not in only:
        return findings
    return findings + _findings("options", lambda: features.differ_by_signature(matcher, others, scene), different)


def check_by_name(name: str, **options: Any) -> list[Finding]:
    """The same for the matcher of this name, with each of its options changed in turn.

    Raises:
        MatcherError, CheckpointError: where it cannot be had.
    """
    return check_matcher(create(name, **options), list(_variations(name, options)))


def _findings(name: str, faults: Callable[[], Iterator[str]], holds: str) -> list[Finding]:
    found = []
    try:
        found += [Finding(name, False, fault) for fault in faults()]
    except Exception as error:  # whatever a stranger's code raises is a finding
        found.append(Finding(name, False, f"it raises {type(error).__name__}: {error}"))
    return found or [Finding(name, True, holds)]


def _variations(name: str, options: Mapping[str, Any]) -> Iterator[Matcher]:
    """Matchers with one option changed, as far as that can be guessed from its default value."""
    for option, parameter in inspect.signature(factory_of(name)).parameters.items():
        if option in options or option in NOT_TRIED:
            continue
        try:
            changed = _another(parameter.default)
            if changed is not None:
                yield create(name, **{**options, option: changed})
        except UserError:
            continue  # not a value that it takes


def _another(value: Any) -> Any:
    """Another value of an option; None where none can be guessed."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return 2 * value or 64  # 0 mostly stands for what suits
    return 0.9 * value if isinstance(value, float) else None
