"""What the nodes really hear, say and offer: asked from ROS itself, in every configuration that adds a name."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rclpy.node import Node
from ros_world import build_map, ros, values

from mast3r_ros.io.bags import BagWriter
from mast3r_ros.ros.bag_player import BagPlayer
from mast3r_ros.ros.mapper_node import Mapper
from mast3r_ros.ros.relocalizer_node import RelocalizerNode

#: What every ROS 2 node has, and every managed one: no feature of this package.
OF_EVERY_NODE = {
    *("rosout", "parameter_events", "~/transition_event", "~/change_state", "~/get_type_description"),
    *(f"~/get_{what}" for what in ("state", "available_states", "available_transitions", "transition_graph")),
    *(f"~/{what}_parameters" for what in ("get", "set", "list", "describe")),
    *("~/get_parameter_types", "~/set_parameters_atomically"),
}


@dataclass
class Interface:
    """Names as a policy and the documentation have them: ``~/pose`` is the node's own, ``tf`` its namespace's."""

    heard: set[str] = field(default_factory=set)
    said: set[str] = field(default_factory=set)
    offered: set[str] = field(default_factory=set)
    asked: set[str] = field(default_factory=set)

    def add(self, node: Node) -> None:
        """All that a node has, and those beside it in its process, ``<its name>_...``."""
        name = node.get_name()
        lists = (
            (self.heard, node.get_subscriber_names_and_types_by_node),
            (self.said, node.get_publisher_names_and_types_by_node),
            (self.offered, node.get_service_names_and_types_by_node),
            (self.asked, node.get_client_names_and_types_by_node),
        )
        for found, namespace in set(node.get_node_names_and_namespaces()):
            if found == name or found.startswith(f"{name}_"):
                for into, ask in lists:
                    into |= {_short(full, f"/{name}/") for full, _ in ask(found, namespace)}


def _short(full: str, own: str) -> str:
    return f"~/{full.removeprefix(own)}" if full.startswith(own) else full.removeprefix("/")


def _named(name: str) -> list[str]:
    """Of nodes with one name ROS tells about one, and those that have ended are known for a while."""
    return ["--ros-args", "-r", f"__node:={name}"]


def of_relocalizer(folder: Path) -> Interface:
    """The relocalizer's, alone, beside AMCL and on simulated time; ``folder`` is for its map."""
    found = Interface()
    for name, more in (("alone", {}), ("beside", {"feed": "amcl"}), ("simulated", {"use_sim_time": True})):
        parameters = {"map": str(build_map(folder / "map")), "matcher": "fake", "autostart": False, **more}
        with ros():
            node = RelocalizerNode(parameter_overrides=values(**parameters), cli_args=_named(name))
            node.trigger_configure()
            node.trigger_activate()
            assert node.lifecycle.state == "active"
            found.add(node)
            node.destroy_node()
    return found


def of_mapper(folder: Path) -> Interface:
    """The mapper's, in real and in simulated time; ``folder`` is for its map."""
    found = Interface()
    for name, simulated in (("recording", False), ("replaying", True)):
        parameters = {"map": str(folder / "new"), "matcher": "fake", "use_sim_time": simulated}
        with ros():
            node = Mapper(parameter_overrides=values(**parameters), cli_args=_named(name))
            found.add(node)
            node.destroy_node()
    return found


def of_bag_player(folder: Path) -> Interface:
    """The bag player's, without what it plays; ``folder`` is for its recording."""
    with BagWriter(folder / "played") as bag:
        bag.transform("odom", "base_link", np.eye(4), 1)
    found = Interface()
    with ros():
        node = BagPlayer(parameter_overrides=values(bag=str(folder / "played")))
        found.add(node)
        node.close()
        node.destroy_node()
    found.said -= {"tf"}
    return found
