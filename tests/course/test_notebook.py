import random

import numpy as np
import plotly.io as pio
import pytest
import torch

from sae_tutorial.course import notebook
from sae_tutorial.figures import style


@pytest.mark.parametrize("name", notebook.SCALES)
def test_scale_comes_from_the_environment(monkeypatch, name):
    monkeypatch.setenv("SAE_TUTORIAL_SCALE", name)
    assert notebook.scale() == name


@pytest.mark.parametrize("unset", [None, "", "  "])
def test_scale_defaults_to_laptop(monkeypatch, unset):
    monkeypatch.delenv("SAE_TUTORIAL_SCALE", raising=False)
    if unset is not None:
        monkeypatch.setenv("SAE_TUTORIAL_SCALE", unset)
    assert notebook.scale() == "laptop"


@pytest.mark.parametrize("call", [notebook.scale, notebook.setup, lambda: notebook.pick(smoke=1, laptop=2)])
def test_unknown_scale_names_the_value_and_the_three(monkeypatch, call):
    monkeypatch.setenv("SAE_TUTORIAL_SCALE", "desktop")
    with pytest.raises(ValueError, match="'desktop'.*smoke, laptop, gpu"):
        call()


def test_pick(monkeypatch):
    for name, value in [("smoke", 1), ("laptop", 2), ("gpu", 3)]:
        monkeypatch.setenv("SAE_TUTORIAL_SCALE", name)
        assert notebook.pick(smoke=1, laptop=2, gpu=3) == value


def test_pick_on_a_gpu_defaults_to_laptop_but_respects_none(monkeypatch):
    monkeypatch.setenv("SAE_TUTORIAL_SCALE", "gpu")
    assert notebook.pick(smoke=1, laptop=2) == 2
    assert notebook.pick(smoke=1, laptop=2, gpu=None) is None


def test_setup_seeds_everything_and_sets_the_theme(monkeypatch):
    monkeypatch.setenv("SAE_TUTORIAL_SCALE", "smoke")
    draws = []
    for seed in (3, 3, 4):
        assert notebook.setup(seed=seed) is None
        draws.append((random.random(), float(np.random.rand()), float(torch.rand(()))))
    assert draws[0] == draws[1] != draws[2]
    assert pio.templates.default == "sae_tutorial"


def test_figures_follow_the_page_in_a_notebook_only(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: shown.append(data))
    notebook.setup()
    assert not shown
    monkeypatch.setattr("IPython.get_ipython", lambda: object())
    notebook.setup()
    assert shown[0]["text/html"] == style.PAGE and shown[0]["text/plain"] == ""


@pytest.mark.parametrize("static, renderer", [("1", "plotly_mimetype+png"), ("", "plotly_mimetype")])
def test_static_pictures_only_when_asked_for(monkeypatch, static, renderer):
    monkeypatch.setenv("SAE_TUTORIAL_STATIC", static)
    notebook.setup()
    assert pio.renderers.default == renderer


def test_expect_names_what_is_off_or_missing():
    notebook.expect({"a": 0.101, "b": 2.0, "c": 9.0}, {"a": 0.1, "b": 2.0}, within=0.002)
    with pytest.raises(AssertionError, match=r"'b': 2\.5.*within 0\.1, found \{'b': 2\.0\}"):
        notebook.expect({"a": 0.1, "b": 2.0}, {"a": 0.1, "b": 2.5}, within=0.1)
    with pytest.raises(AssertionError, match="'b': None"):
        notebook.expect({"a": 0.1}, {"b": 2.0}, within=9)
    with pytest.raises(AssertionError, match="nan"):
        notebook.expect({"a": float("nan")}, {"a": 0.0}, within=9)
