"""Notebook 07: few features fire often, most rarely."""
