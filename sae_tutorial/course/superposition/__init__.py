"""Notebook 02: more features than dimensions."""
