#!/usr/bin/env bash
# Makes an environment at the repository root with everything: libraries, ROS 2 from wheels, interfaces that have no wheel,
# this package.
#
#   scripts/setup.sh                  .venv: newest libraries, ROS 2 Kilted
#   DISTRO=jazzy scripts/setup.sh     .venv-jazzy: Ubuntu 24.04's libraries, ROS 2 Jazzy
#   DISTRO=humble scripts/setup.sh    .venv-humble: setup.py's floors, which are Ubuntu 22.04's libraries, on Python 3.10
#   ... --python                      only print the interpreter that would be taken, or say why there is none
#
# Work is done in stages. A finished stage leaves the hash of its inputs in the environment's .setup, so that a second
# run does nothing, a changed input repeats its stage only, and an interrupted run goes on where it stopped.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
distro=${DISTRO:-kilted}
case $distro in
    kilted) folder=.venv ros=requirements/ros-kilted.txt lowest=10 highest=14 ;;
    # numpy 1.26 has no wheels for later Pythons.
    jazzy) folder=.venv-jazzy ros=requirements/ros-jazzy.txt lowest=10 highest=12 ;;
    humble) folder=.venv-humble ros=requirements/ros-jazzy.txt lowest=10 highest=10 ;;
    *) echo "setup: DISTRO=$distro is not one of kilted (the default), jazzy, humble" >&2; exit 2 ;;
esac
venv=$root/$folder
pythons="Python 3.$lowest to 3.$highest"
[ "$lowest" != "$highest" ] || pythons="Python 3.$lowest"
# The ROS wheels restart the interpreter with their library path once per process tree; a tree that began in
# another environment must not keep that environment's libraries.
unset _ROS_WHEELS_BOOTSTRAP_COMPLETE PYTHONPATH PYTHONHOME
export PIP_DISABLE_PIP_VERSION_CHECK=1
# From 25.3 on pip reads the second one for what it builds.
export PIP_CONSTRAINT=$root/requirements/constraints.txt PIP_BUILD_CONSTRAINT=$root/requirements/constraints.txt

say() { printf '\033[1msetup:\033[0m %s\n' "$*" >&2; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

# Whether it runs (a shim of pyenv exists without its Python) and has a version for this environment.
supported() {
    "$1" -c "import sys; sys.exit(not (3, $lowest) <= sys.version_info[:2] <= (3, $highest))" 2>/dev/null
}

find_python() {
    local candidate
    for candidate in ${PYTHON:-} python3 python3.13 python3.12 python3.11 python3.10 python3.14 \
        "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.*/bin/python; do
        if supported "$candidate"; then
            python=$candidate
            return
        fi
    done
    return 1
}

need_python() {
    python=
    # apt's python3 is new enough for the default environment; the others ask for a Python of a certain age.
    [ "$distro" != kilted ] || need "$pythons" python3 find_python
    find_python || die "DISTRO=$distro needs $pythons, and none is on PATH or in pyenv's versions folder:" \
        "install one ('pyenv install 3.$highest'), or name it by PYTHON=/path/to/python3.$highest."
}

# need WHAT APT_PACKAGES COMMAND...: the command tells whether WHAT is there; if not, apt brings it.
need() {
    local what=$1 packages=$2
    shift 2
    "$@" >/dev/null 2>&1 && return
    local install="apt-get install --yes --no-install-recommends $packages"
    if ! command -v apt-get >/dev/null; then
        die "$what is missing: install it with this system's package manager (Debian: $packages), then run make setup again."
    elif [ "$(id -u)" -ne 0 ]; then
        die "$what is missing and installing it needs root: run 'sudo $install', then make setup again."
    fi
    say "installing $packages ($what)"
    { apt-get update && DEBIAN_FRONTEND=noninteractive $install; } >&2 ||
        die "$what could not be installed: run '$install' and look at its messages."
    "$@" >/dev/null 2>&1 || die "$what is still missing after installing $packages."
}

has_headers() { test -f "$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["include"])')/Python.h"; }

check_system() {
    need_python
    local version
    version=$("$python" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
    need "a C++ compiler" g++ g++ --version
    need "the Python headers (Python.h)" "$version-dev" has_headers
    need "Python's venv module" "$version-venv" "$python" -c 'import ensurepip, venv'
}

make_venv() {
    "$venv/bin/python" -m pip --version >/dev/null 2>&1 && return
    say "making $folder with $("$python" --version)"
    "$python" -m venv --clear "$venv"
}

install_requirements() {
    say "installing the pinned libraries and ROS 2 wheels (some minutes the first time)"
    case $distro in
        kilted)
            pip_install -r requirements.txt -r "$ros" -r requirements/test.txt -r requirements/lint.txt
            pip_install --no-deps -r requirements/features.txt
            ;;
        jazzy)
            pip_install -r requirements/pip.txt -r requirements/ubuntu-24.04.txt -r "$ros" -r requirements/test.txt
            ;;
        humble) install_floors ;;
    esac
}

pip_install() { "$venv/bin/python" -m pip install --quiet --progress-bar off "$@"; }

install_floors() {
    local floors=$root/.cache/floors.txt
    "$venv/bin/python" scripts/floors.py --without torch >"$floors"
    pip_install -r "$floors" -r requirements/torch-floor.txt -r "$ros" -r requirements/test.txt
    pip_install --no-deps "$("$venv/bin/python" scripts/floors.py torch)"
    "$venv/bin/python" -c 'import torch' 2>/dev/null || pip_install --no-deps -r requirements/torch-floor-cuda.txt
}

# Interfaces that have no wheel. The virtual environment is a full CMake prefix, so rosidl generates them there.
# The nodes need tf2_msgs; bond and nav2_msgs are there so that what they do beside Nav2 is tested.
build_interfaces() {
    local package build
    export PATH=$venv/bin:$PATH AMENT_PREFIX_PATH=$venv CMAKE_PREFIX_PATH=$venv LD_LIBRARY_PATH=$venv/lib
    for package in tf2_msgs bond nav2_msgs; do
        build=$root/.cache/$package$folder
        say "generating $package"
        rm -rf "$build" && mkdir -p "$build"
        {
            cmake -G Ninja -S "$root/scripts/interfaces/$package" -B "$build" -DCMAKE_INSTALL_PREFIX="$venv" \
                -DBUILD_TESTING=OFF -DPython3_EXECUTABLE="$venv/bin/python" &&
                ninja -C "$build" install
        } >"$build/log.txt" 2>&1 || {
            tail -n 30 "$build/log.txt" >&2
            die "$package could not be generated: the whole log is in $build/log.txt"
        }
    done
}

install_package() {
    say "installing mast3r_ros (editable)"
    "$venv/bin/python" -m pip install -qq --no-deps --no-build-isolation --editable .
}

check_environment() {
    "$venv/bin/python" -c 'import rclpy, tf2_msgs.msg, bond.msg, nav2_msgs.srv, mast3r_ros' ||
        die "the finished environment cannot import ROS 2: remove $folder and run make setup again."
}

# stage NAME FUNCTION INPUT_FILES...: runs the function unless it finished before with the same inputs.
stage() {
    local name=$1 run=$2 stamp=$venv/.setup/$1 hash
    shift 2
    hash=$(sha256sum "$@" | sha256sum)
    if [ "$(cat "$stamp" 2>/dev/null)" != "$hash" ]; then
        ( "$run" )
        mkdir -p "$venv/.setup"
        echo "$hash" >"$stamp"
        changed=1
    fi
}

main() {
    if [ "${1:-}" = --python ]; then
        need_python
        echo "$python"
        return
    fi
    mkdir -p .cache
    if command -v flock >/dev/null; then
        exec 9>.cache/setup.lock
        flock 9
    fi
    changed=
    "$venv/bin/python" --version >/dev/null 2>&1 || rm -rf "$venv/.setup"
    [ -f "$venv/.setup/package" ] || check_system
    # The floors are setup.py's.
    local inputs=(requirements.txt requirements/*.txt)
    [ "$distro" != humble ] || inputs+=(setup.py)
    stage environment make_venv /dev/null
    stage requirements install_requirements "${inputs[@]}"
    mapfile -t interfaces < <(find scripts/interfaces -type f | LC_ALL=C sort)
    stage interfaces build_interfaces "$ros" "${interfaces[@]}"
    # Data files are copied by pip, so a changed launch, configuration or executable file repeats this stage.
    mapfile -t data_files < <(find launch config executables -type f 2>/dev/null | LC_ALL=C sort)
    stage package install_package setup.py package.xml "${data_files[@]}"
    if [ -n "$changed" ]; then
        check_environment
        say "done: the command is $folder/bin/mast3r_ros"
    fi
}

main "$@"
