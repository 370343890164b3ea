"""A managed node's own view of its lifecycle, through what rclpy offers to everybody: its lifecycle services.

rclpy has no other public way to ask a node for its state. Its ``change_state`` service raises on a transition that is
not possible from the present state (up to Jazzy), so that whoever called it waits for ever: here it always answers.
"""

from __future__ import annotations

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.node import Node


class Lifecycle:
    """The state and the transitions of a node that has rclpy's ``LifecycleNodeMixin``."""

    def __init__(self, node: Node) -> None:
        self._node = node
        services = {service.srv_type: service for service in node.services}
        self._ask = services[GetState].callback
        self._change = services[ChangeState].callback
        services[ChangeState].callback = self._answer

    @property
    def state(self) -> str:
        """Label of the present state, as ``~/get_state`` answers it: unconfigured, configuring, inactive, active ..."""
        return str(self._ask(GetState.Request(), GetState.Response()).current_state.label)

    def change(self, transition: int) -> bool:
        """Make a transition (``Transition.TRANSITION_...``); whether it was possible and succeeded."""
        request = ChangeState.Request(transition=Transition(id=transition))
        return bool(self._answer(request, ChangeState.Response()).success)

    def _answer(self, request: ChangeState.Request, response: ChangeState.Response) -> ChangeState.Response:
        before = self.state
        try:
            return self._change(request, response)
        except Exception as error:  # rclpy's own type for it is private
            wanted = request.transition.label or str(request.transition.id)
            self._node.get_logger().warning(f"transition {wanted} from state {before} is not possible: {error}")
            response.success = False
            return response
