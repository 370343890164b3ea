"""What common camera drivers call their topics, as their official ROS 2 packages start them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CameraTopics:
    """Topics of one camera; empty where there is none.

    Attributes:
        image: raw colour images; compressed ones are beside them, as image_transport has it.
        camera_info: their calibration.
        depth: depth registered to colour.
        depth_info: calibration of the depth images.
        settings: file in config/ with what nodes should know of such a camera; empty for none.
        driver: how the driver is started so that these topics exist.
    """

    image: str
    camera_info: str
    depth: str = ""
    depth_info: str = ""
    settings: str = ""
    driver: str = ""


#: By the name that the launch files take as ``camera:=``.
CAMERAS = {
    "realsense": CameraTopics(
        image="/camera/camera/color/image_raw",
        camera_info="/camera/camera/color/camera_info",
        depth="/camera/camera/aligned_depth_to_color/image_raw",
        depth_info="/camera/camera/aligned_depth_to_color/camera_info",
        settings="realsense.yaml",
        driver="ros2 launch realsense2_camera rs_launch.py align_depth.enable:=true",
    ),
    "zed": CameraTopics(
        image="/zed/zed_node/rgb/color/rect/image",
        camera_info="/zed/zed_node/rgb/color/rect/camera_info",
        depth="/zed/zed_node/depth/depth_registered",
        depth_info="/zed/zed_node/depth/camera_info",
        settings="zed.yaml",
        driver="ros2 launch zed_wrapper zed_camera.launch.py camera_model:=zed2i",
    ),
    # Wrapper 5 renamed the image topics; this is for wrapper 4.
    "zed4": CameraTopics(
        image="/zed/zed_node/rgb/image_rect_color",
        camera_info="/zed/zed_node/rgb/camera_info",
        depth="/zed/zed_node/depth/depth_registered",
        depth_info="/zed/zed_node/depth/camera_info",
        settings="zed.yaml",
        driver="ros2 launch zed_wrapper zed_camera.launch.py camera_model:=zed2i",
    ),
    # OrbbecSDK_ROS2 2.x (branch v2-main): the Gemini 330 series; the others differ in the name of the launch file.
    "orbbec": CameraTopics(
        image="/camera/color/image_raw",
        camera_info="/camera/color/camera_info",
        depth="/camera/depth/image_raw",
        depth_info="/camera/depth/camera_info",
        settings="orbbec.yaml",
        driver="ros2 launch orbbec_camera gemini_330_series.launch.py depth_registration:=true enable_frame_sync:=true",
    ),
    # depthai-ros 2 (Humble, Jazzy) starts with camera.launch.py, version 3 (Kilted and later) with driver.launch.py.
    "oak": CameraTopics(
        image="/oak/rgb/image_raw",
        camera_info="/oak/rgb/camera_info",
        depth="/oak/stereo/image_raw",
        depth_info="/oak/stereo/camera_info",
        settings="oak.yaml",
        driver="ros2 launch depthai_ros_driver camera.launch.py",
    ),
    "usb_cam": CameraTopics(
        image="/image_raw",
        camera_info="/camera_info",
        settings="usb_cam.yaml",
        driver="ros2 run usb_cam usb_cam_node_exe",
    ),
    "none": CameraTopics(image="image", camera_info="camera_info", depth="depth", depth_info="depth/camera_info"),
}
