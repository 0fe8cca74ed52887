"""The lessons: one folder for each notebook with its exercises, its figures and its toys. Nothing imports this room.

notebook     what a notebook does first: theme, seeds, sizes by SAE_TUTORIAL_SCALE
environment  a check of the machine
vocabulary   words that neurons and features answer to, and how many different ones they are
results      what the grid of `benchmarks/quality.py` found
judge        exercises that answer back
widgets      explorers made of ipywidgets

features         what the features of an SAE do on a text, and a rule that finds those one understands at once
feature_browser  the best features beside a fair draw, and an explorer
steering         text written with a feature switched on
"""
