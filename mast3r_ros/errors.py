"""Errors meant for people.

Every failure that a user can cause or cure is a ``UserError``: its message names the thing that is
wrong and the way out. The CLI prints it and exits 1; a node logs it once and lives on.
"""


class UserError(Exception):
    """Base of all errors whose message alone is enough for a user to act on."""


class CalibrationError(UserError):
    """Camera intrinsics or distortion that cannot be used."""


class CodecError(UserError):
    """An image, depth image or point cloud message that cannot be decoded."""


class BagError(UserError):
    """A recording that cannot be read or written."""


class DatasetError(UserError):
    """A data set folder with a missing or malformed file."""


class MapError(UserError):
    """A map on disk that is missing, damaged, of a newer format, or made for something else."""


class MatcherError(UserError):
    """A matcher that is unknown or cannot run here."""


class CheckpointError(UserError):
    """A network checkpoint that is missing, damaged, foreign, unsafe, or of another architecture."""


class SettingsError(UserError):
    """A setting that does not exist or was given a value it cannot have, or a parameter file that cannot be read."""
