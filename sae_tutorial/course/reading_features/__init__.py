"""Notebook 10: what a feature is about, and how one knows."""
