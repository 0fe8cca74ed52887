"""Notebook 11, dark matter: what an SAE leaves out."""
