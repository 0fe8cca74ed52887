"""What one head says, as codes."""

import pytest
import torch
from drawing import drawn

from sae_tutorial.circuits.prompts import Prompts
from sae_tutorial.course.discrete_circuits import drawings, viewer
from sae_tutorial.course.discrete_circuits.tasks import Task


def prompts(*text):
    places = torch.zeros(len(text), dtype=torch.int64)
    return Prompts(text, places[:, None], {"END": places}, places)


@pytest.fixture
def coded():
    task = Task(prompts("a <b>", "x" * 80), prompts("c", "d"), lambda logits: logits[:, 0])
    codes = torch.tensor([[5, 1], [7, 1], [7, 1], [-1, 1]])
    return viewer.Coded(task, codes, torch.tensor([0.25, 0.5]))


def test_codes_that_only_positives_have_are_marked(coded):
    page = viewer.codes_html(coded, ["0.0", "0.1"], "0.0")
    assert "1 codes that only positives have" in page and "25%" in page and "&lt;b&gt;" in page and "… " in page
    assert page.count(viewer.GREEN) == 1 and ">5</span>" in page and ">none</span>" in page


def test_the_picture_counts(coded):
    fig = viewer.counts(coded, ["0.0", "0.1"], "0.0")
    assert drawn(fig) == {
        "positive prompts": (["5", "7", "none"], [1, 1, 0]),
        "negative prompts": (["5", "7", "none"], [0, 1, 1]),
    }
    assert "1 of its 3 codes" in fig.layout.title.text.replace("<br>", " ")


def test_the_menus_choose(coded):
    box = viewer.code_viewer({"a": coded, "b": coded}, ["0.0", "0.1"])
    menus, page = box.children
    assert menus.children[1].value == "0.1" and "Head 0.1" in page.value
    menus.children[1].value = "0.0"
    assert "Head 0.0" in page.value
    with pytest.raises(ValueError, match=r"head='9\.9' is none of 0\.0, 0\.1"):
        viewer.counts(coded, ["0.0", "0.1"], "9.9")


def test_the_drawing_says_what_it_shows():
    assert "scores 1" in drawings.from_outputs_to_score().alt
