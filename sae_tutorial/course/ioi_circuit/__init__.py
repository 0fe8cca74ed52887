"""Notebook 07: how the model knows who is the indirect object."""
