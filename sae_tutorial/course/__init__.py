"""The lessons: one folder for each notebook with its exercises, its figures and its toys. Nothing imports this room.

notebook     what a notebook does first: theme, seeds, sizes by SAE_TUTORIAL_SCALE
environment  a check of the machine
vocabulary   words that neurons and features answer to, and how many different ones they are
results      what the grid of `benchmarks/quality.py` found
judge        exercises that answer back
widgets      explorers made of ipywidgets
"""
