import torch
from drawing import drawn

from sae_tutorial.course.start_here import figures as plots


def test_the_histogram_counts_the_neurons_and_marks_chance_and_the_neuron():
    marks = {"random words": 5.0, "random mixes": 4.4, "the neuron above": 6.0}
    fig = plots.words_per_neuron(torch.tensor([1.0, 1.1, 1.9, 2.0, 6.1]), marks, title="t")
    x, y = drawn(fig)["1"]
    found = {middle: n for middle, n in zip(x, y) if n}
    assert found == {1.125: 2, 1.875: 1, 2.125: 1, 6.125: 1}
    notes = fig.layout.annotations
    assert {note.text: note.x for note in notes} == marks
    assert {note.text: note.xanchor for note in notes} == {name: "right" for name in marks} | {
        "the neuron above": "left"
    }
    assert {note.text: note.yshift for note in notes} == {"random mixes": 0, "random words": 15, "the neuron above": 30}
    assert {shape.line.dash for shape in fig.layout.shapes} == {"dash"}, "a dash that differs would mean something"


def test_neurons_below_two_words_have_a_colour_of_their_own():
    fig = plots.words_per_neuron(torch.tensor([1.5, 1.9, 2.0, 3.0]), {}, title="t")
    colours = dict(zip(fig.data[0].x, fig.data[0].marker.color))
    assert len({colour for middle, colour in colours.items() if middle < 2}) == 1
    named = {trace.name: trace.marker.color for trace in fig.data if trace.showlegend is not False}
    assert named == {"two words or more": colours[2.125], "fewer than two": colours[1.875]}
    assert {colours[1.875]} & {colour for middle, colour in colours.items() if middle > 2} == set()
