"""Notebook 06: few features fire often, most rarely."""
