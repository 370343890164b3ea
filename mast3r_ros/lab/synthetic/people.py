"""People, who are never where they were when the map was made."""

from __future__ import annotations

from dataclasses import replace

from mast3r_ros.lab.synthetic import pictures, textures
from mast3r_ros.lab.synthetic.layout import Layout

#: Just enough light of their own that they cast no shadow: they will not stay where the light was computed.
GLOW = 0.51


def visitor(room: Layout) -> None:
    """A person of random size and clothes, standing at the origin of the builder's frame and facing +y."""
    number = int(room.rng.integers(1 << 30))
    height, width = room.uniform(1.55, 1.9), room.uniform(0.34, 0.46)
    shirt = room.surface(f"shirt {number}", lambda rng: pictures.abstract(rng, 256), 0.6)
    cloth = room.surface(f"trousers {number}", lambda rng: textures.fabric(rng, room.style.accent), 0.4)
    skin = room.colour((205, 160, 130))
    shirt, cloth, skin = (replace(material, emission=GLOW) for material in (shirt, cloth, skin))
    for side in (-1, 1):
        room.builder.cylinder((side * width / 4, 0, height * 0.23), width / 5, height * 0.46, cloth)
        room.builder.cylinder((side * width * 0.62, 0, height * 0.62), width / 9, height * 0.38, shirt)
    room.builder.box((0, 0, height * 0.65), (width, width * 0.55, height * 0.38), shirt)
    room.builder.sphere((0, 0, height * 0.92), (0.17, 0.2, 0.25), skin)
