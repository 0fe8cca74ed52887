"""The viewer of features and what they were gathered from."""

import re

import pytest
import torch

from sae_tutorial import SAEConfig, SparseAutoencoder
from sae_tutorial.activations.forward import read_hook
from sae_tutorial.circuits.attention_features import Attribution, Matches
from sae_tutorial.course.attention_outputs import study, viewer


@pytest.fixture
def drawn(model):
    """Two features at EACH rows of 50 tokens; the second is raised by head 1 from position 3 alone."""
    n, H, S = 2 * study.EACH, 2, 50
    tokens = torch.randint(10, 4000, (n, S), generator=torch.Generator().manual_seed(0))
    tokens[:, 0] = 0
    features = torch.tensor([5, 9]).repeat_interleave(study.EACH)
    heads = torch.zeros(n, H, S)
    heads[: study.EACH, 0, 44], heads[: study.EACH, 1, 0] = 3.0, 1.0
    heads[study.EACH :, 1, 3], heads[study.EACH :, 0, 40] = 2.0, -5.0
    matches = Matches(tokens, torch.arange(n), torch.full((n,), 45), features)
    return study.DrawnOn(torch.tensor([5, 9]), matches, Attribution(heads, torch.zeros(n)))


def test_the_table_has_heads_and_kinds(drawn):
    first, second = viewer.table(drawn, 0), viewer.table(drawn, 1)
    names = list(study.SOURCES)
    assert first[0, names.index("previous")] == 0.75 and first[1, names.index("start")] == 0.25
    assert second[1, names.index("far")] == 1 and second.sum() == 1, "what lowers is left out"


def test_the_page_names_feature_family_and_heads_and_shows_the_source(model, drawn):
    html = viewer.sources_html(model, drawn, 1)
    assert "Feature 9" in html and "“far”: head 1 100%" in html
    assert html.count(" … ") == viewer.SHOWN, "the source is further back than what is shown"
    assert html.count('100%"') == viewer.SHOWN and html.count("<b>") == viewer.SHOWN + 1
    near = viewer.sources_html(model, drawn, 0)
    assert " … " not in near and near.count('title="75%"') == viewer.SHOWN


def test_the_widget_goes_from_feature_to_feature(model, drawn):
    box = viewer.source_viewer(model, drawn, feature=5)
    slider, page = box.children
    assert slider.value == 0 and "Feature 5" in page.value
    slider.value = 1
    assert "Feature 9" in page.value
    with pytest.raises(ValueError, match="feature=6"):
        viewer.source_viewer(model, drawn, feature=6)


def test_the_figure_states_the_largest_cell(drawn):
    title = viewer.heads_by_kind(drawn, 0).layout.title.text
    assert re.search("Feature 5: 75% .* head 0", title) and "previous" in title


@pytest.fixture
def reads_layer_1(model):
    sae = SparseAutoencoder(SAEConfig(256, 64, k=4, rule="token_choice"))
    sae.hook_name = "blocks.1.attn.hook_z"
    return sae


def test_features_at_the_end_of_a_typed_text_are_taken_apart(model, reads_layer_1):
    text = "The red dragon sat on the hill. The girl saw the red"
    matches, shares = viewer.gathered_at_end(model, reads_layer_1, text)
    n, ids = len(matches.features), model.to_tokens(text)
    assert n and torch.equal(matches.tokens, ids) and matches.positions.tolist() == [ids.shape[1] - 1] * n
    torch.testing.assert_close(shares.sum((1, 2)), torch.ones(n))
    with read_hook(model, reads_layer_1.hook_name) as read:
        codes = reads_layer_1.encode(read(ids)[0].flatten(1)).to_dense()
    often = (codes > 0).float().mean(0) > viewer.OFTEN
    assert not often[matches.features].any()
    assert codes[-1, matches.features].tolist() == codes[-1][~often].sort(descending=True).values[:n].tolist()


def test_of_a_long_text_the_end_is_read(model, reads_layer_1):
    matches, _ = viewer.gathered_at_end(model, reads_layer_1, "one two three " * 40)
    assert matches.tokens.shape == (1, viewer.MAX_TOKENS + 1)
    assert matches.tokens[0, 0] == model.to_tokens("a")[0, 0], "the row begins with its start"


def test_the_typed_text_is_read_again_when_it_changes(model, reads_layer_1):
    typed, page = viewer.own_text_viewer(model, reads_layer_1, "Tom saw Ann. Then Tom").children
    before = page.value
    assert before.count("<div") == len(viewer.gathered_at_end(model, reads_layer_1, typed.value)[0].features)
    typed.value = "Mary <b> & John"
    assert page.value != before and "&lt;" in page.value
    typed.value = ""
    assert "No feature" in page.value
    assert "No feature" in viewer.own_text_map(model, reads_layer_1, "").layout.title.text


def test_the_map_says_what_brings_most(model, reads_layer_1):
    title = viewer.own_text_map(model, reads_layer_1, "Tom saw Ann. Then Tom").layout.title.text
    assert re.search(r"feature \d+ has \d+% from “.+”", title)
