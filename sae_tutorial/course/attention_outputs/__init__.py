"""Attention outputs: features of what the heads of a layer gather, and where they gather it from."""
