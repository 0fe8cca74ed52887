"""What the language model is tested on must not be what it was trained on."""

from __future__ import annotations

import random

import circuit_sentences as sentences
import pytest

from sae_tutorial.circuits import ioi

LISTS = {
    name: getattr(sentences, name)
    for name in ("PLACES", "OBJECTS", "ADJECTIVES", "MENTIONS", "JOINTS", "ACTIONS", "EVENTS", "SPANS")
}


@pytest.mark.parametrize("name", LISTS)
def test_training_and_test_lists_share_nothing(name: str) -> None:
    assert not set(LISTS[name]["train"]) & set(LISTS[name]["held_out"])


def test_names_stand_in_one_place() -> None:
    assert sentences.NAMES is ioi.NAMES


def test_every_pair_of_names_belongs_to_one_split() -> None:
    pairs = {
        split: {frozenset(sentences.name_pair(random.Random(i), split)) for i in range(3000)}
        for split in ("train", "held_out")
    }
    assert not pairs["train"] & pairs["held_out"]
    n = len(sentences.NAMES)
    held_out = sum(sentences.is_held_out_pair(a, b) for i, a in enumerate(sentences.NAMES) for b in sentences.NAMES[:i])
    assert 0.1 < held_out / (n * (n - 1) / 2) < 0.2


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_a_prompt_names_the_subject_twice_and_the_indirect_object_once(split: str) -> None:
    rng = random.Random(0)
    firsts = []
    for _ in range(2000):
        p = sentences.ioi_sentence(rng, split)
        words = [word for word in "".join(c if c.isalpha() else " " for c in p.prompt).split() if word in (p.io, p.s)]
        assert sorted(words) == sorted([p.io, p.s, p.s]), p
        assert words[-1] == p.s and p.text.startswith(f"{p.prompt} {p.io}")
        assert "{" not in p.text
        firsts.append(words[0] == p.io)
    assert 0.45 < sum(firsts) / len(firsts) < 0.55  # ABBA and BABA alike: the order gives nothing away


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_year_spans_end_later_than_they_start(split: str) -> None:
    rng = random.Random(0)
    for _ in range(500):
        p = sentences.year_span(rng, split)
        assert p.text.startswith(p.prompt)
        assert int(p.text[len(p.prompt) :][:2]) > p.start


def test_fillers_hold_no_names() -> None:
    text = "Mary went out into the rain. The old dog slept by the fire. Nobody knew why the door was open. Short one"
    assert sentences.sentence_fillers(text) == ["The old dog slept by the fire.", "Nobody knew why the door was open."]
