"""Folders and recordings of posed camera frames, each layout read by one class with the same interface."""

from mast3r_ros.io.datasets.base import FrameList, Source
from mast3r_ros.io.datasets.detect import LAYOUTS, open_source

__all__ = ["LAYOUTS", "FrameList", "Source", "open_source"]
