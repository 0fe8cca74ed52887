import re

import pytest
import torch

from sae_tutorial.circuits import ioi, patching
from sae_tutorial.course import widgets
from sae_tutorial.figures.style import DIVERGING


def fills(svg):
    return re.findall(r'<rect [^>]*fill="([^"]+)"', svg)


def test_a_pattern_has_the_colours_and_the_labels_of_the_figures():
    svg = widgets.pattern_svg(torch.eye(3), ["<|endoftext|>", " a", "<b>"])
    assert len(fills(svg)) == 9
    assert fills(svg)[0] == fills(svg)[4] == "rgb(254, 232, 56)" and fills(svg)[1] == "rgb(0, 34, 78)"  # of Cividis
    assert "⟨end⟩" in svg and "·a" in svg and "&lt;b&gt;" in svg and "<b>" not in svg
    assert "<title>·a takes 100% from ·a</title>" in svg
    with pytest.raises(ValueError, match="3 tokens"):
        widgets.pattern_svg(torch.eye(2), ["a", "b", "c"])


def test_a_map_begins_with_layer_0_at_the_top():
    svg = widgets.map_svg(torch.tensor([[1.0, 0.0], [-1.0, torch.nan]]), [" a", " b"])
    colours = [f"rgb{tuple(bytes.fromhex(colour[1:]))}" for _, colour in DIVERGING]
    assert fills(svg) == [colours[2], colours[1], colours[0], colours[1]]
    rows = re.findall(r'y="(\d+)" [^>]*><title>layer (\d)', svg)
    assert rows == [("0", "0"), ("0", "0"), ("30", "1"), ("30", "1")]
    heights = [float(y) for y in re.findall(r'<text x="102" y="([\d.]+)"', svg)]
    assert heights == sorted(heights)
    assert "layer 1, ·a: -1.00" in svg
    with pytest.raises(ValueError, match="2 tokens"):
        widgets.map_svg(torch.zeros(2, 3), ["a", "b"])


def test_the_viewer_follows_its_controls(model):
    box = widgets.attention_viewer(model, "Tom saw Mary.")
    sentence, sliders, picture, note = box.children
    layer, head = sliders.children
    drawn = {picture.value}
    layer.value = model.cfg.n_layers - 1
    drawn.add(picture.value)
    head.value = model.cfg.n_heads - 1
    drawn.add(picture.value)
    sentence.value = "Mary saw Tom in the garden."
    drawn.add(picture.value)
    assert len(drawn) == 4
    assert "garden" in picture.value and note.value == ""


def test_the_viewer_begins_where_it_is_told(model):
    last = (model.cfg.n_layers - 1, model.cfg.n_heads - 1)
    _, sliders, *_ = widgets.attention_viewer(model, "Tom saw Mary.", start=last).children
    assert tuple(slider.value for slider in sliders.children) == last


def test_a_sentence_that_is_too_long_is_cut_and_the_viewer_says_so(model):
    box = widgets.attention_viewer(model, "word " * 200)
    _, _, picture, note = box.children
    assert picture.value.count("text-anchor") == 2 * widgets.MAX_TOKENS
    assert f"first {widgets.MAX_TOKENS} of " in note.value


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("When Mary and John went to the store, John gave a drink to", ("Mary", "John")),
        ("Then Lucy and Paul had lunch at the river. Later Paul passed the ring to", ("Lucy", "Paul")),
        ("After Mary met John in John's garden, I saw him give the ball to", ("Mary", "John")),
    ],
)
def test_names_are_found_in_the_sentence(text, names):
    assert widgets.names_in(text) == names


@pytest.mark.parametrize("text", ["", "mary and john", "When Mary and John went out, Tom gave it to", "Oh Tom Tom"])
def test_a_sentence_without_such_names_is_told(text):
    with pytest.raises(ValueError, match="one name that comes once and one that comes twice"):
        widgets.names_in(text)


def test_the_patching_viewer_draws_a_map_or_says_what_is_wrong(model):
    box = widgets.patching_viewer(model)
    sentence, part, said, picture = box.children
    assert "Mary above John" in said.value and len(fills(picture.value)) == 4 * 15
    drawn = picture.value
    part.value = "hook_mlp_out"
    assert picture.value != drawn

    heard = []
    said.observe(lambda change: heard.append(change["new"]), names="value")
    sentence.value = "After Tom met Anna in the garden, Anna gave the ball to"
    assert len(heard) == 1 and "Tom above Anna" in heard[0], "new names cause no errors on the way"
    assert "garden" in picture.value
    sentence.value = "After Tom met <b>Anna</b> in the garden, she gave the ball to"
    assert picture.value == "" and "comes twice" in said.value and "<b>" not in said.value


@pytest.mark.parametrize("widget", [widgets.attention_viewer, widgets.patching_viewer])
def test_a_widget_is_stored_with_a_picture_where_figures_are(model, widget, monkeypatch):
    drawn = []
    monkeypatch.setattr("plotly.graph_objects.Figure.to_image", lambda fig, **how: drawn.append(fig) or b"PNG")
    box = widget(model)
    monkeypatch.delenv("SAE_TUTORIAL_STATIC", raising=False)
    assert "image/png" not in box._repr_mimebundle_() and not drawn
    monkeypatch.setenv("SAE_TUTORIAL_STATIC", "1")
    assert box._repr_mimebundle_()["image/png"] == "UE5H"
    (trace,) = drawn[0].data
    assert trace.type == "heatmap" and drawn[0].layout.yaxis.autorange == "reversed"


def test_a_widget_without_a_sentence_has_a_picture_that_says_so(model, monkeypatch):
    monkeypatch.setattr("plotly.graph_objects.Figure.to_image", lambda fig, **how: b"PNG")
    monkeypatch.setenv("SAE_TUTORIAL_STATIC", "1")
    assert widgets.patching_viewer(model, "nothing")._repr_mimebundle_()["image/png"]


def test_all_positions_of_one_sentence_in_one_pass(model):
    clean = ioi.ioi_sentences(model, 8, seed=3)
    other = ioi.counterfactual(model, clean, "abc")
    names = ["blocks.0.hook_resid_pre", "blocks.2.hook_mlp_out"]
    one, donor = clean[:1], patching.activations(model, other[:1], names)
    metric = lambda logits: logits[:, one.io[0]] - logits[:, one.wrong[0]]  # noqa: E731
    found = widgets.patch_positions(model, one, donor, names, metric)
    n = int(one.positions["END"][0]) + 1
    sites = [patching.Site(name, None, torch.tensor([place])) for name in names for place in range(n)]
    slow = patching.patch_each(model, one, sites, donor, metric)[:, 0].view(2, n)
    assert torch.allclose(found, slow, atol=1e-3)
    with pytest.raises(ValueError, match="8 prompts cannot be copied as one"):
        widgets.patch_positions(model, clean, donor, names, metric)
