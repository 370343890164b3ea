"""Readers of benchmarks that only measurements need: Map-free, lists of image pairs, point clouds."""
