import torch
from drawing import drawn

from sae_tutorial.course.start_here import figures as plots


def test_the_histogram_counts_the_neurons_and_marks_chance_and_the_neuron():
    fig = plots.words_per_neuron(
        torch.tensor([1.0, 1.1, 6.1]), {"random words": 5.0, "the neuron above": 6.0}, title="t"
    )
    ((x, y),) = drawn(fig).values()
    assert x[0] == 1 and y[0] == 2 and y[-1] == 1 and sum(y) == 3
    assert {note.text: note.x for note in fig.layout.annotations} == {"random words": 5, "the neuron above": 6}
    assert {note.text: note.xanchor for note in fig.layout.annotations} == {
        "random words": "right",
        "the neuron above": "left",
    }
