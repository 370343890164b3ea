"""Visual relocalization for ROS 2: the metric pose of a camera in a map of reference keyframes."""

import os

from mast3r_ros import moved

__version__ = "0.1.0"

moved.install()

# A robot's cores are never idle, and threads that spin while they wait for each other make everything several
# times slower beside other work: torch's OpenMP threads are asked to sleep instead, and numpy's OpenBLAS, which
# cannot, gets one thread for its small products. Defaults only; they must be set before numpy and torch are
# imported. docs/benchmarks.md has the figures.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
