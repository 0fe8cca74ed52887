"""Notebook 12, gradient SAEs: features that are chosen by what the model's loss makes of them."""
