"""Many views at once: pair graphs, alignment of pointmaps, structure from motion."""
