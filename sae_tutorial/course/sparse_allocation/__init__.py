"""Notebook 05: who gets to use which feature."""
