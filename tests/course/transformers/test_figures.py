import plotly.graph_objects as go
import torch

from sae_tutorial.course.transformers import figures as plots
from sae_tutorial.figures import heads, text

PATTERNS = torch.rand(2, 3, 4, 4).tril()
TOKENS = ["<|endoftext|>", " a", " b", "\n"]


def test_labels_show_what_is_invisible():
    assert [text.label(t) for t in TOKENS] == ["⟨end⟩", "·a", "·b", "↵"]


def test_every_figure_has_a_title_and_named_axes():
    scores = {"induction": torch.rand(2, 3), "previous token": torch.rand(2, 3)}
    figures = [
        plots.next_tokens([" a", " b"], torch.tensor([0.6, 0.2]), "t"),
        plots.parameter_shares({"m": {"x": 3, "y": 7}, "n": {"x": 5, "y": 5}}, "t"),
        heads.attention_picker(PATTERNS, TOKENS, first=(1, 2)),
        plots.contributions(["a", "b"], torch.tensor([1.0, -3.0]), "t", "nats"),
        heads.overlaps({"w": torch.rand(5), "random": torch.rand(5)}, 0.5, "t"),
        plots.lens_curves(["embed", "block 0"], torch.rand(2), torch.rand(2), "t"),
        plots.lens_table(["embed", "block 0"], TOKENS, [TOKENS, TOKENS], torch.rand(2, 4), "t"),
        plots.temperatures({0.5: torch.rand(2), 1.0: torch.rand(2)}, [" a", " b"], "t"),
        heads.loss_by_position(torch.rand(8), 4, "t"),
        heads.head_maps(scores, "t"),
        heads.knockouts({"whole model": 1.0, "without": 3.0}, torch.rand(4), "t"),
    ]
    for figure in figures:
        assert isinstance(figure, go.Figure)
        assert figure.layout.title.text
        assert figure.layout.xaxis.title.text or figure.layout.yaxis.title.text
        figure.to_json()


def test_the_grid_has_one_map_per_head_and_one_colour_scale():
    figure = heads.attention_grid(PATTERNS, "t")
    assert len(figure.data) == 6
    assert {trace.coloraxis for trace in figure.data} == {"coloraxis"}


def test_the_picker_offers_every_head_and_starts_with_the_one_asked_for():
    figure = heads.attention_picker(PATTERNS, TOKENS, first=(1, 2))
    menu = figure.layout.updatemenus[0]
    assert len(menu.buttons) == 6 and menu.active == 5
    assert "Layer 1 head 2" in figure.layout.title.text
    (shown,) = [trace for trace in figure.data if trace.visible]
    assert torch.allclose(torch.tensor(shown.z), PATTERNS[1, 2])
    assert [sum(button.args[0]["visible"]) for button in menu.buttons] == [1] * 6


def test_shares_sum_to_one_and_contributions_to_their_sum():
    shares = plots.parameter_shares({"m": {"x": 3, "y": 7}}, "t")
    assert sum(trace.x[0] for trace in shares.data) == 1
    figure = plots.contributions(["a", "b"], torch.tensor([1.0, -3.0]), "t", "nats")
    assert figure.data[0].text[-1] == "-2.00"
    low, high = figure.layout.xaxis.range
    assert low < -2 and high > 1


def test_text_on_a_colour_contrasts():
    assert text.on("#F0E442") == "#111111"
    assert text.on("#0072B2") == "#FFFFFF"


def test_a_habit_is_named():
    words = ["<s>", "a", "b", "c", "a", "b", "c"]
    size = len(words)
    before = torch.eye(size).roll(-1, dims=1)
    start = torch.zeros(size, size)
    start[:, 0] = 1
    copying = start.clone()
    for i in (4, 5, 6):
        copying[i] = torch.eye(size)[i - 2]
    assert "the one before" in heads.habit(before, words)
    assert "themselves" in heads.habit(torch.eye(size), words)
    assert "start mark" in heads.habit(start, words)
    assert heads.habit(copying, words).startswith("100% of the repeated tokens")


def test_one_word_said_twice_makes_no_habit_of_copying():
    words = ["<s>", "Lily", "saw", "a", "dog", "and", "Lily", "ran", "home"]
    pattern = torch.zeros(len(words), len(words))
    pattern[:, 0] = 1
    pattern[6] = torch.eye(len(words))[2]  # behind the first "Lily"
    assert heads.habit(pattern, words).endswith("look most at the start mark")
