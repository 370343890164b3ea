#!/usr/bin/env bash
# ROS 2, the workspace and its virtual environment for whatever is run in the container.
set -e
source "/opt/ros/$ROS_DISTRO/setup.bash"
source /ros2_ws/install/local_setup.bash
source /ros2_ws/venv/bin/activate
exec "$@"
