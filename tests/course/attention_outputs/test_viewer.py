"""The viewer of features and what they were gathered from."""

import re

import pytest
import torch

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
