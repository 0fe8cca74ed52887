"""Figures of notebook 01 draw what they are given, where it belongs."""

import re

import pytest
import torch
from drawing import cells, drawn, plain

from sae_tutorial.course.transformers import figures as plots

ODD = ["<|endoftext|>", " a", "<b>", "\n"]
SHOWN = ["⟨end⟩", "·a", "&lt;b&gt;", "↵"]


def test_the_likeliest_token_is_on_top():
    fig = plots.next_tokens(ODD, torch.tensor([0.5, 0.25, 0.125, 0.0625]), "t")
    assert drawn(fig) == {"1": ([0.5, 0.25, 0.125, 0.0625], SHOWN)}
    assert fig.layout.yaxis.autorange == "reversed" and fig.layout.xaxis.tickformat == ".0%"


def test_contributions_fall_to_their_sum():
    fig = plots.contributions(["a", "b"], torch.tensor([1.0, -3.0]), "t", "nats")
    assert drawn(fig) == {"1": ([1, -3, None], ["a", "b", "sum"])}
    assert plain(fig.data[0].text) == ["+1.00", "-3.00", "-2.00"]
    low, high = fig.layout.xaxis.range
    assert low < -2 and high > 1


def test_the_lens_table_has_depths_down_and_tokens_across():
    p = torch.tensor([[0.9, 0.1, 0.2, 0.3], [0.4, 0.5, 0.6, 0.7]])
    fig = plots.lens_table(["embed", "layer 0"], ODD, [ODD, ["a very long guess for a cell", *ODD[1:]]], p, "t")
    assert cells(fig) == [[round(v, 4) for v in row] for row in p.tolist()]
    (heat,) = fig.data
    assert plain(heat.y) == ["embed", "layer 0"] and plain(fig.layout.xaxis.ticktext) == SHOWN
    assert [re.sub("<[^>]+>", "", text) for text in heat.text[0]] == SHOWN
    assert "color:#000000" in heat.text[0][0] and "color:#FFFFFF" in heat.text[0][1]  # on yellow, on blue
    assert heat.text[1][0].endswith("…</span>") and heat.customdata[1][0] == "a·very·long·guess·for·a·cell"


@pytest.mark.parametrize(("tokens", "cells_"), [(1, 1), (12, 12)])
def test_the_table_is_no_wider_for_more_tokens(tokens, cells_):
    fig = plots.lens_table(["e"], ["x"] * tokens, [["y"] * tokens], torch.rand(1, tokens), "t")
    assert fig.layout.width <= 605 and len(cells(fig)[0]) == cells_


def test_the_table_of_parameters_has_shares_and_a_total():
    table = plots.parameter_table({"a": {"attention": 300, "MLP": 900}, "b": {"attention": 1, "MLP": 0}})
    assert list(table.headers) == ["parameters", "a", "b"]
    assert [tuple(row) for row in table.rows] == [
        ("attention", "300 (25%)", "1 (100%)"),
        ("MLP", "900 (75%)", "0 (0%)"),
        ("total", "1,200", "1"),
    ]
