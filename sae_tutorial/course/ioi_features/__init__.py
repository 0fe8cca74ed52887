"""Notebook 09: the model’s answer changed by changing a few features."""
