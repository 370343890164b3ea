"""Visual relocalization for ROS 2: the metric pose of a camera in a map of reference keyframes."""

__version__ = "0.1.0"
