"""Notebook 03: what a feature is."""
