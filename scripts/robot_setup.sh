#!/usr/bin/env bash
# On a machine with ROS 2 in /opt/ros (a robot, an image of ros:*): brings what the package needs, and colcon's tools.
#
# apt brings what package.xml names, pip the rest into .venv-robot, which sees apt's libraries and keeps their versions.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

apt-get update
apt-get install --yes --no-install-recommends python3-venv python3-pip python3-pytest-timeout ros-dev-tools
[ -d /etc/ros/rosdep/sources.list.d ] || rosdep init
rosdep update --rosdistro "$ROS_DISTRO"
rosdep install --from-paths . --ignore-src --yes --rosdistro "$ROS_DISTRO"

held=requirements/$(source /etc/os-release && echo "$ID-$VERSION_ID").txt
[ -f "$held" ] || held=requirements/constraints.txt
python3 -m venv --system-site-packages .venv-robot
touch .venv-robot/COLCON_IGNORE
# Not what apt has: numpy, OpenCV and the others under names of their own.
.venv-robot/bin/pip install -r requirements/pip.txt -c "$held" faiss-cpu
