"""Whether a matcher, a stranger's too, keeps the contract of :mod:`mast3r_ros.matching.base`."""

from mast3r_ros.lab.conformance.suite import Finding, check_by_name, check_matcher

__all__ = ["Finding", "check_by_name", "check_matcher"]
