"""Notebook 08: the model’s answer changed by changing a few features."""
