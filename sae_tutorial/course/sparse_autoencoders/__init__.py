"""Notebook 04: how directions are found again."""
