"""Discrete circuits: heads found by counting codes of their outputs, and what of that the labels have a part in."""
