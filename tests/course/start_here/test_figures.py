import torch

from sae_tutorial.course.start_here import figures as plots
from sae_tutorial.evaluation.contexts import Context

CONTEXT = Context(
    before="one day the very small boy who lived there met <b>",
    token=" Mary",
    after=" in\nthe garden of",
    activation=2.5,
)


def test_a_context_reads_as_one_sentence_and_is_no_markup():
    assert plots.before(CONTEXT, width=20).endswith(" <b>Mary</b>")
    assert plots.before(CONTEXT, width=20).startswith("…")
    assert "&lt;b&gt;" in plots.before(CONTEXT)
    assert plots.after(CONTEXT) == " in the garden of"
    assert plots.after(CONTEXT, width=10) == " in the …"
    assert plots.after(CONTEXT, width=1) == ""
    end = Context(before="home.<|endoftext|>One", token=" day", after="", activation=1.0)
    assert plots.before(end) == "home. | One <b>day</b>"


def test_one_bar_per_place_coloured_by_token():
    other = Context(before="", token="ing", after="", activation=1.0)
    figure = plots.neuron_contexts([CONTEXT, CONTEXT, other], "t")
    assert [len(trace.x) for trace in figure.data] == [2, 1]
    assert len(figure.layout.yaxis.ticktext) == 3
    figure.to_json()


def test_text_stands_beside_a_bar_that_is_too_short_for_it():
    short = Context(before="", token=" Mary", after=" in the garden of her aunt", activation=0.2)
    silent = Context(before="", token=" Mary", after=" at home", activation=-0.1)
    bars, beside = plots.neuron_contexts([CONTEXT, short, silent], "t").data
    assert bars.text[0] and list(bars.text[1:]) == ["", ""]
    assert list(beside.text) == [" in the garden of her aunt", " at home"]
    assert list(beside.x) == [0.2, 0] and list(beside.y) == [1, 2]


def test_the_histogram_marks_chance_and_the_neuron():
    figure = plots.words_per_neuron(torch.rand(50) * 5 + 1, chance=5.0, shown=6.0, title="t")
    notes = {annotation.text: annotation.x for annotation in figure.layout.annotations}
    assert notes == {"random words": 5.0, "the neuron above": 6.0}
