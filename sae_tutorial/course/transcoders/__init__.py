"""Transcoders: what MLPs compute, feature by feature, and circuits whose sums can be checked."""
