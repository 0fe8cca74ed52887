import torch

from sae_tutorial.course.start_here import explorer
from sae_tutorial.course.start_here.measures import most_mixed, ten_at_random

MEANS = torch.tensor([[0.0, 2.0], [1.0, 0.5], [3.0, 1.0]])


WORDS = [" <a>", " b", " c"]


def test_a_neuron_shows_its_words_strongest_first(monkeypatch):
    box = explorer.word_viewer({"neuron": (MEANS, torch.tensor([1.5, 2.5]))}, WORDS, number=1)
    row, page = box.children
    _, number = row.children
    assert "count as 2.5" in page.value
    assert page.value.index("&lt;a&gt;") < page.value.index(">c<") < page.value.index(">b<")
    number.value = 0
    assert "active on 2 of our words" in page.value and "&lt;a&gt;" not in page.value, "0 on a word is no answer to it"
    assert page.value.index(">c<") < page.value.index(">b<")
    number.value = 7
    assert number.value == 1, "there are two neurons"

    drawn = []
    monkeypatch.setattr("plotly.graph_objects.Figure.to_image", lambda fig, **how: drawn.append(fig) or b"PNG")
    monkeypatch.setenv("SAE_TUTORIAL_STATIC", "1")
    assert box._repr_mimebundle_()["image/png"] == "UE5H"
    assert list(drawn[0].data[0].y) == ["<a>", "c", "b"] and "neuron 1" in drawn[0].layout.title.text


def test_the_viewer_switches_to_features_and_back():
    features = torch.rand(3, 5, generator=torch.Generator().manual_seed(0))
    shown = {"neuron": (MEANS, torch.tensor([1.5, 2.5])), "feature": (features, torch.arange(5) + 0.5)}
    row, page = explorer.word_viewer(shown, WORDS).children
    kind, number = row.children
    kind.value = "feature"
    number.value = 4
    assert "count as 4.5" in page.value and f"{features[:, 4].max():.2f}" in page.value
    kind.value = "neuron"
    assert number.value == 1 and "count as 2.5" in page.value, "there is no neuron 4: the last one is shown"


def test_the_most_mixed_neuron_is_reliable_and_answers_to_unlike_words():
    embedding = torch.eye(24)
    embedding[:10] = embedding[0] + 0.01 * torch.randn(10, 24, generator=torch.Generator().manual_seed(0))
    tokens = torch.arange(20).repeat(40)
    alike, unlike = (tokens < 10).float(), (tokens >= 10).float()
    rare = unlike * (torch.arange(800) < 100)  # active on 5 of 40 occurrences of each word: not reliable
    words = torch.arange(20)
    assert most_mixed(torch.stack([alike, unlike], 1), tokens, words, embedding) == 1
    assert most_mixed(torch.stack([alike, 5 * rare], 1), tokens, words, embedding) == 0


def test_ten_at_random_are_ten_different_ones():
    far = torch.cat([torch.eye(16), -torch.eye(16)])  # every cosine is 0 or -1
    assert ten_at_random(torch.arange(32), far, draws=20) == (10.0, 0.0)
    alike = torch.cat([torch.ones(12, 4), -torch.ones(12, 4)])  # the mean is 0
    assert ten_at_random(torch.arange(12), alike, draws=20) == (1.0, 1.0)
