"""Notebook 08: how the model knows who is the indirect object."""
