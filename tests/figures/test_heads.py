"""Figures about attention heads draw what they are given, where it belongs."""

import pytest
import torch
from drawing import cells, drawn, plain, written

from sae_tutorial.figures import heads

PATTERNS = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)).tril()
TOKENS = ["<|endoftext|>", " a", "<b>", "\n"]


def test_the_grid_has_one_map_per_head_and_one_colour_scale():
    fig = heads.attention_grid(PATTERNS, "t")
    assert torch.allclose(torch.tensor(cells(fig, 4)) / 100, PATTERNS[1, 1], atol=0.006) and len(fig.data) == 6
    assert {trace.coloraxis for trace in fig.data} == {"coloraxis"} and fig.layout.yaxis.autorange == "reversed"
    assert written(fig)[:5] == ["head 0", "head 1", "head 2", "layer 0", "layer 1"]


def test_patterns_lie_side_by_side_over_the_same_tokens():
    names = ["0 BOS", "1 ·a", "2 ·b", "3 ·a"]
    fig = heads.pattern_maps({"head 0.0": PATTERNS[0, 0], "head 1.2": PATTERNS[1, 2]}, names, "t")
    for number, pattern in enumerate((PATTERNS[0, 0], PATTERNS[1, 2])):
        assert torch.allclose(torch.tensor(cells(fig, number)) / 100, pattern, atol=0.006)
        assert plain(fig.data[number].x) == plain(fig.data[number].y) == names
    assert written(fig) == ["head 0.0", "head 1.2"] and fig.layout.yaxis.autorange == "reversed"


def test_one_token_has_no_habit():
    assert "nobody else" in heads.habit(torch.ones(1, 1), ["<s>"])


def test_overlaps_keep_every_pair_and_mark_chance():
    fig = heads.overlaps({"w": torch.tensor([0.2, 0.1]), "random": torch.tensor([0.5])}, 0.125, "t")
    assert {name: x for name, (x, _) in drawn(fig).items()} == {"w": pytest.approx([0.2, 0.1]), "random": [0.5]}
    assert fig.layout.shapes[0].x0 == 0.125 and written(fig) == ["chance: 0.125"]


def test_the_largest_overlap_is_named_where_it_is():
    groups = {"w": torch.tensor([0.2, 0.1]), "v": torch.tensor([0.6, 0.1])}
    note = heads.overlaps(groups, 0.125, "t", largest="0.1 → 1.0").layout.annotations[-1]
    assert (note.text, note.x, note.y) == ("0.1 → 1.0", pytest.approx(0.6), "v")


def test_losses_stand_at_their_positions_and_the_second_time_is_marked():
    fig = heads.loss_by_position(torch.tensor([8.0, 9.0, 1.0, 0.0]), 2, "t")
    assert drawn(fig) == {"loss": ([1, 2, 3, 4], [8, 9, 1, 0])}
    assert (fig.layout.shapes[0].x0, fig.layout.shapes[0].x1) == (2.5, 4.5) and written(fig) == ["first time", "again"]


def test_head_maps_have_layers_down_and_heads_across():
    fig = heads.head_maps({"induction": torch.tensor([[0.0, 1.0], [0.5, 0.05]]), "other": torch.zeros(2, 2)}, "t")
    assert cells(fig) == [[0, 1], [0.5, 0.05]] and [plain(row) for row in fig.data[0].text] == [
        ["", "1.0"],
        [".50", ""],
    ]
    assert written(fig) == ["induction", "other"] and fig.layout.yaxis.autorange == "reversed"
    assert (fig.layout.xaxis.title.text, fig.layout.yaxis.title.text) == ("head", "layer")


def test_knockouts_have_the_mean_of_the_controls_and_each_draw():
    fig = heads.knockouts({"whole": 1.0, "without": 3.0}, torch.tensor([1.0, 2.0]), "t", others="without 4 others")
    (keys, bars), (at, draws) = drawn(fig).values()
    assert bars == [1, 3, 1.5] and keys[:2] == ["whole", "without"]
    assert draws == [1, 2] and at == [keys[2]] * 2 and keys[2] == "without 4 others<br>(2 draws)"
    assert written(fig) == ["1", "3", "1.5"]


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
    assert "BOS token" in heads.habit(start, words)
    assert heads.habit(copying, words).startswith("100% of the repeated tokens")


def test_without_a_habit_the_last_token_is_told():
    pattern = torch.eye(6)[[0, 0, 1, 3, 4, 2]]  # two look at the one before, two at themselves
    assert heads.habit(pattern, ["<s>", "a", " met", " b", " c", " to"]) == "“to” looks most at “met”: 100%"


def test_one_word_said_twice_makes_no_habit_of_copying():
    words = ["<s>", "Lily", "saw", "a", "dog", "and", "Lily", "ran", "home"]
    pattern = torch.zeros(len(words), len(words))
    pattern[:, 0] = 1
    pattern[6] = torch.eye(len(words))[2]  # after the first "Lily"
    assert heads.habit(pattern, words).endswith("look most at the BOS token")
