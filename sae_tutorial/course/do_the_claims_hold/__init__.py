"""Notebook 06: what each rule is worth, and when."""
