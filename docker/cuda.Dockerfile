# The relocalizer on an NVIDIA GPU, as docs/install.md installs it. PyTorch's wheels bring CUDA; the host needs its driver
# and the NVIDIA Container Toolkit. (Jetson: PyTorch comes with JetPack's images; start FROM one of those that has ROS 2.)
# From the root of the repository:
#   docker build -f docker/cuda.Dockerfile --build-arg ROS_DISTRO=jazzy -t mast3r_ros:cuda .
#   docker run --rm -it --gpus all --network host --ipc host -v "$HOME/maps:/maps" mast3r_ros:cuda \
#     ros2 launch mast3r_ros relocalization.launch.py map:=/maps/office camera:=realsense
ARG ROS_DISTRO=jazzy
FROM ros:${ROS_DISTRO}-ros-base

SHELL ["/bin/bash", "-o", "pipefail", "-c"]
WORKDIR /ros2_ws
RUN apt-get update && apt-get install -y --no-install-recommends python3-venv && rm -rf /var/lib/apt/lists/*

# What changes rarely comes first: apt's packages, then the virtual environment.
COPY package.xml src/mast3r_ros/
RUN apt-get update && rosdep update --rosdistro "$ROS_DISTRO" \
    && rosdep install -y --from-paths src --ignore-src --dependency-types=exec \
    && rm -rf /var/lib/apt/lists/*
COPY requirements-robot.txt .
COPY requirements/constraints.txt requirements/
RUN python3 -m venv --system-site-packages venv && touch venv/COLCON_IGNORE \
    && python3 -c 'import numpy; print(f"numpy=={numpy.__version__}")' > numpy.txt \
    && venv/bin/pip install --no-cache-dir -r requirements-robot.txt -c numpy.txt

COPY . src/mast3r_ros
RUN source "/opt/ros/$ROS_DISTRO/setup.bash" && colcon build
ENTRYPOINT ["/ros2_ws/src/mast3r_ros/docker/entrypoint.sh"]
CMD ["ros2", "run", "mast3r_ros", "mast3r_ros", "--help"]
