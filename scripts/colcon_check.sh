#!/usr/bin/env bash
# Builds and tests the package with colcon as a robot's workspace would, in a clean copy of the tracked files,
# against ROS 2 in /opt/ros (after robot_setup.sh) or else the wheels in .venv (DISTRO=jazzy, humble: theirs).
# Ends with the number of tests that ran.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
workspace=$root/.cache/colcon
rm -rf "$workspace"
mkdir -p "$workspace/src/mast3r_ros"
git -C "$root" ls-files -z | tar -C "$root" --null --files-from=- -cf - | tar -C "$workspace/src/mast3r_ros" -xf -
touch "$root/.cache/COLCON_IGNORE"

cd "$workspace"
export COLCON_LOG_LEVEL=error
set +u # ROS's and colcon's generated scripts read variables that may be unset
if [ -f "/opt/ros/${ROS_DISTRO:-}/setup.bash" ]; then
    source "/opt/ros/$ROS_DISTRO/setup.bash"
    source "$root/.venv-robot/bin/activate"
else
    venv=$root/.venv
    [ "${DISTRO:-kilted}" = kilted ] || venv+=-$DISTRO
    export PATH=$venv/bin:$PATH AMENT_PREFIX_PATH=$venv CMAKE_PREFIX_PATH=$venv
fi
# As developers build it, then as it is tested; `ros2 run` starts what lies in lib/mast3r_ros.
for mode in --symlink-install --executor=sequential; do
    rm -rf build install
    python -m colcon build "$mode"
    [ "$(cd install/mast3r_ros/lib/mast3r_ros && echo *)" = "bag_player mapper mast3r_ros relocalizer" ]
    (source install/local_setup.bash && install/mast3r_ros/lib/mast3r_ros/mast3r_ros --version)
done
source install/local_setup.bash
set -u
imported=$(python -c 'import mast3r_ros; print(mast3r_ros.__file__)')
[[ $imported == "$workspace"/install/* ]] || { echo "the workspace runs $imported instead of its own install" >&2; exit 1; }
launch=(install/mast3r_ros/lib/mast3r_ros/relocalizer --ros-args -p "map:=$workspace/map")
if command -v ros2 >/dev/null; then
    launch=(ros2 launch mast3r_ros relocalization.launch.py "map:=$workspace/map" image:=/image camera_info:=/camera_info)
fi
python "$root/scripts/node_check.py" "$workspace/map" "${launch[@]}"

python -m colcon test --event-handlers console_direct+ --pytest-args -m smoke
summary=$(colcon test-result --all | tail -n 1) || { colcon test-result --verbose; exit 1; }
[[ $summary =~ ([0-9]+)\ tests,.*\ ([0-9]+)\ skipped ]] || { echo "colcon test gave no summary: $summary" >&2; exit 1; }
ran=$((BASH_REMATCH[1] - BASH_REMATCH[2]))
[ "$ran" -gt 0 ] || { echo "colcon test ran no test" >&2; exit 1; }
echo "colcon: built, relocalizer ran, $ran tests passed"
