"""Recordings of ROS 1 and ROS 2, read and written without a ROS installation."""

from mast3r_ros.io.bags.reader import BagReader, open_bag
from mast3r_ros.io.bags.topics import FrameTopics, Topic, find_topics
from mast3r_ros.io.bags.writer import BagWriter

__all__ = ["BagReader", "BagWriter", "FrameTopics", "Topic", "find_topics", "open_bag"]
