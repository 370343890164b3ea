"""Matching on a GPU: the same contract as the CPU's path, fixed shapes, and one wait at the end.

``matches`` and ``points`` are the doors. They take the kernels (Triton, imported on first use) where these run, and
the plain search of ``matching/reciprocal.py`` where they do not; that one is what every kernel is tested against.
"""
