"""Notebook 01: what a transformer is made of."""
