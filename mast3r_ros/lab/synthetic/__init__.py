"""Ray-cast indoor worlds with exact images, depth, poses and drifting odometry: for the demo, tests and training.

    world = make_room("living", seed=3)
    trajectory = tour(world, seed=0)
    for moment in render_sequence(world, trajectory, camera):
        moment.posed.frame.image, moment.posed.frame.depth, moment.posed.map_T_camera, moment.odom_T_base

The map frame is z up with the floor at z = 0 and the room centred at the origin. Everything is a function of
its seeds.
"""

from mast3r_ros.lab.synthetic.lighting import LightingSettings
from mast3r_ros.lab.synthetic.render import RenderedViews, Renderer, RenderSettings
from mast3r_ros.lab.synthetic.rooms import FAMILIES, RoomSettings, make_room
from mast3r_ros.lab.synthetic.sensors import CameraNoise, DepthNoise, OdometryNoise, drifting, exposed, measured
from mast3r_ros.lab.synthetic.sequence import SequenceFrame, SequenceSettings, render_sequence
from mast3r_ros.lab.synthetic.shots import Shot, take
from mast3r_ros.lab.synthetic.trajectory import TourSettings, Trajectory, mounted_camera, tour
from mast3r_ros.lab.synthetic.world import AreaLight, Material, World, WorldBuilder

__all__ = [
    "FAMILIES",
    "AreaLight",
    "CameraNoise",
    "DepthNoise",
    "LightingSettings",
    "Material",
    "OdometryNoise",
    "RenderSettings",
    "RenderedViews",
    "Renderer",
    "RoomSettings",
    "SequenceFrame",
    "SequenceSettings",
    "Shot",
    "TourSettings",
    "Trajectory",
    "World",
    "WorldBuilder",
    "drifting",
    "exposed",
    "make_room",
    "measured",
    "mounted_camera",
    "render_sequence",
    "take",
    "tour",
]
