#!/usr/bin/env bash
# Runs a command in a ROS environment of its own: with_ros.sh COMMAND...
#
# The command gets its own domain, so that nothing else on the network is heard, and stays on this machine.
# What the caller has set is kept, except the wheels' restart guard: see scripts/setup.sh.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
unset _ROS_WHEELS_BOOTSTRAP_COMPLETE
export ROS_DOMAIN_ID=${ROS_DOMAIN_ID:-$((1 + $$ % 100))}
export ROS_AUTOMATIC_DISCOVERY_RANGE=${ROS_AUTOMATIC_DISCOVERY_RANGE:-LOCALHOST}
export ROS_LOG_DIR=${ROS_LOG_DIR:-$root/.cache/ros_log}
export ROS_PYTHON_CHECK_FIELDS=${ROS_PYTHON_CHECK_FIELDS:-1}

# Our Fast DDS profile, under the name that the ROS 2 of this command's environment reads.
python=$(dirname "$(command -v "$1")")/python
[ -x "$python" ] || python=$root/.venv/bin/python
[ -x "$python" ] || python=python3
profile=$("$python" "$root/mast3r_ros/ros/fast_dds.py")
[ -z "$profile" ] || export "${profile?}"

# Bytecode beside the sources, also where a container forbids it: without it every process compiles all of the package.
unset PYTHONDONTWRITEBYTECODE

exec "$@"
