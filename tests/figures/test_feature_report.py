"""The report: one file that says what the pages say, and that no text can break."""

import re
from html.parser import HTMLParser

import pytest

from sae_tutorial import feature_report, reference_sae, story_tokens
from sae_tutorial.evaluation.feature_evidence import feature_evidence
from sae_tutorial.figures import feature_report as module


@pytest.fixture(scope="module")
def made(model, tmp_path_factory):
    sae, tokens = reference_sae("mutual_choice"), story_tokens(8_192, 64, source="books")
    evidence = feature_evidence(sae, model, tokens, progress=False)
    features = evidence.counts.topk(40).indices[[3, 20, 39]].tolist()
    path = tmp_path_factory.mktemp("report") / "new" / "features.html"
    assert feature_report(sae, model, tokens, features, path=path, evidence=evidence) == path
    return sae, tokens, evidence, features, path.read_text()


class Balance(HTMLParser):
    """Whether every tag is closed in its turn, and what is loaded from elsewhere."""

    ALONE = {"meta", "input", "br", "!doctype"}

    def __init__(self):
        super().__init__()
        self.open, self.loaded, self.ids = [], [], []

    def handle_starttag(self, tag, attrs):
        self.loaded += [v for k, v in attrs if k in ("src", "href") and not v.startswith("#")]
        self.ids += [v for k, v in attrs if k == "id"]
        if tag not in self.ALONE:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_file_stands_alone_and_is_well_formed(made):
    *_, features, html = made
    found = Balance()
    found.feed(html)
    assert found.open == [] and found.loaded == []
    assert [i for i in found.ids if i.startswith("f") and i != "find"] == [f"f{feature}" for feature in features]
    assert html.count("<section") == 3 and "http" not in html


def test_it_says_what_was_found(made):
    sae, tokens, evidence, features, html = made
    assert f"read at {sae.hook_name} on {evidence.n_positions:,} tokens" in html
    for feature in features:
        assert f"<b>Feature {feature}</b>: active at {float(evidence.density[feature]):.3%}" in html


def test_features_that_are_there_are_linked(made, model):
    sae, _, evidence, features, _ = made
    [page] = module.feature_pages(evidence, sae, model, features[:1])
    close = page.similar[0][0]
    pages = module.feature_pages(evidence, sae, model, [features[0], close])
    html = module.document(pages, module.words_of(model), "t", "a")
    assert f'<a href="#f{close}">{close}</a>' in html


def test_text_cannot_break_a_page():
    html = module.shaded(["<b>", " a\n", "<|endoftext|>"], [0.5, 0.0, 2.0], bold=1)
    assert "&lt;b&gt;" in html and "<b> a </b>" in html and " | </span>" in html
    assert [float(a) for a in re.findall(r"0, ([\d.]+)\)", html)] == [0.45, 0.75]
    assert module.chips([(1, 0.5)], lambda ids: ["<i>"]) == '<code title="+0.50">&lt;i&gt;</code>'
    assert "<script>alert" not in module.document([], lambda ids: [], "<script>alert(1)</script>", "a")


def test_default_place_is_the_cache(made, model, tmp_path, monkeypatch):
    sae, tokens, evidence, features, _ = made
    monkeypatch.setenv("SAE_TUTORIAL_CACHE", str(tmp_path))
    path = feature_report(sae, model, tokens, features, evidence=evidence)
    assert path == tmp_path / "reports" / "feature_report.html" and path.exists()


def test_bad_input_is_named(made, model):
    sae, tokens, evidence, *_ = made
    with pytest.raises(ValueError, match="at most 500"):
        feature_report(sae, model, tokens, range(501), evidence=evidence)
    with pytest.raises(ValueError, match="between 0 and 4095, got -1"):
        feature_report(sae, model, tokens, [-1], evidence=evidence)
