"""Rigid motions, lens distortion and pose solvers: numpy in, numpy out, no state."""
