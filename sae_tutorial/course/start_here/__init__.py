"""Notebook 00: one neuron, many meanings."""
