"""What robots call AMCL by, offered by the relocalizer in its place: where the robot is, and when to look again.

The names are AMCL's: the topic ``initialpose`` and the services ``set_initial_pose`` and ``request_nomotion_update``.
"""

from __future__ import annotations

import time
from concurrent.futures import Future

from geometry_msgs.msg import PoseWithCovarianceStamped
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.service import Service
from std_srvs.srv import Empty

from mast3r_ros.errors import UserError
from mast3r_ros.ros import priors
from mast3r_ros.ros.attempts import Outcome
from mast3r_ros.ros.frame_processor import FrameProcessor
from mast3r_ros.ros.node_context import NodeContext

try:
    from nav2_msgs.srv import SetInitialPose
except ImportError:  # Nav2 is not installed
    SetInitialPose = None


class AmclInterface:
    """The services exist from *configure* to *clean up*, as AMCL's do; a pose given meanwhile is kept for later.

    Args:
        beside_amcl: AMCL itself offers the services, and one name must not have two servers.
    """

    def __init__(self, context: NodeContext, processor: FrameProcessor, beside_amcl: bool) -> None:
        self._node = context.node
        self._settings = context.settings
        self._attempts = context.attempts
        self._complaints = context.complaints
        self._processor = processor
        self._demanded: Future[Outcome] | None = None
        self._services: list[Service] = [] if beside_amcl else self._offer()

    def destroy(self) -> None:
        """Take the services down."""
        while self._services:
            self._node.destroy_service(self._services.pop())

    def take_initial_pose(self, message: PoseWithCovarianceStamped) -> None:
        """Where somebody says that the robot is; a pose that cannot be used is refused with a message in the log."""
        try:
            prior = priors.from_message(message, self._settings().node.global_frame_id)
        except UserError as error:
            self._complaints.say("bad_initialpose", f"initialpose refused: {error}")
            return
        self._complaints.cured("bad_initialpose")
        x, y = prior.map_T_base[:2, 3]
        self._node.get_logger().info(f"initial pose: robot near ({x:.2f}, {y:.2f}) m")
        self._processor.set_prior(prior)

    def _offer(self) -> list[Service]:
        group = MutuallyExclusiveCallbackGroup()
        offered = [
            self._node.create_service(
                Empty, "request_nomotion_update", self._take_nomotion_update, callback_group=group
            )
        ]
        if SetInitialPose is None:
            self._node.get_logger().info("no service set_initial_pose: the ROS package nav2_msgs is not installed")
        else:
            offered.append(
                self._node.create_service(
                    SetInitialPose, "set_initial_pose", self._take_set_initial_pose, callback_group=group
                )
            )
        return offered

    def _take_set_initial_pose(self, request: object, response: object) -> object:
        self.take_initial_pose(request.pose)  # type: ignore[attr-defined]
        return response

    def _take_nomotion_update(self, request: Empty.Request, response: Empty.Response) -> Empty.Response:
        """The next image is looked at whatever ``max_rate`` says; its pose is published as always."""
        if self._demanded is not None:
            self._attempts.give_up(self._demanded)  # one look answers all who asked before it
        self._demanded = self._attempts.ask(time.monotonic_ns())
        return response
