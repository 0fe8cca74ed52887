import pytest
import torch

from sae_tutorial.course import widgets


def test_a_pattern_is_drawn_below_the_diagonal_with_its_tokens_escaped():
    svg = widgets.pattern_svg(torch.eye(3), ["<|end|>", " a", "\n"])
    assert svg.count("<rect") == 6  # 3 positions see 1, 2 and 3 positions
    assert "&lt;|end|&gt;" in svg and "<|end|>" not in svg
    with pytest.raises(ValueError, match="3 tokens"):
        widgets.pattern_svg(torch.eye(2), ["a", "b", "c"])


def test_the_viewer_follows_its_controls(model):
    box = widgets.attention_viewer(model, "Tom saw Mary.")
    sentence, sliders, picture = box.children
    layer, head = sliders.children
    drawn = {picture.value}
    layer.value = model.cfg.n_layers - 1
    drawn.add(picture.value)
    head.value = model.cfg.n_heads - 1
    drawn.add(picture.value)
    sentence.value = "Mary saw Tom in the garden."
    drawn.add(picture.value)
    assert len(drawn) == 4
    assert "garden" in picture.value
    sentence.value = "word " * 200  # longer than can be read
    assert picture.value.count("text-anchor") == widgets.MAX_TOKENS


def test_the_patching_viewer_draws_a_map_or_says_what_is_wrong(model):
    box = widgets.patching_viewer(model)
    sentence, controls, said, picture = box.children
    right, wrong, part = controls.children
    assert "Mary above John" in said.value and picture.value.count("<rect") == 4 * 15
    drawn = picture.value
    part.value = "hook_mlp_out"
    assert picture.value != drawn
    wrong.value = "Johannes"
    assert picture.value == "" and "must name" in said.value and "Johannes" in said.value
    wrong.value = "John"
    sentence.value = "After Mary met John in the garden, John gave the ball to"
    assert picture.value and "garden" in picture.value


def test_a_map_needs_a_column_for_each_token():
    with pytest.raises(ValueError, match="2 tokens"):
        widgets.map_svg(torch.zeros(2, 3), ["a", "b"])
