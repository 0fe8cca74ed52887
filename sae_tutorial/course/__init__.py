"""The lessons: one folder for each notebook with its exercises, its figures and its toys. Nothing imports this room.

notebook     what a notebook does first: theme, seeds, sizes by SAE_TUTORIAL_SCALE
environment  a check of the machine
vocabulary   words that neurons and features answer to, and how many different ones they are
judge        exercises that answer back
widgets      explorers made of ipywidgets
"""
