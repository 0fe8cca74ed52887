"""A language model as explainer and as judge of explanations: the questions that it is asked.

    explanation = explain_by_chat(chat, material, words)
    scores(explanation, material, ChatJudge(chat, words))

The protocols are those of Bills et al. 2023 (simulation) and Paulo et al. 2024 (explanation, detection, fuzzing); the
wording is ours, and short, because small models lose the thread.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sae_tutorial.evaluation.chat import Chat, Messages
from sae_tutorial.evaluation.explanations import Explanation, Material
from sae_tutorial.evaluation.feature_pages import Passage, Words

LEFT, RIGHT = "<<", ">>"  # around tokens at which a feature is active
SHARE = 0.1  # of the largest activation, from which a token is shown as active
EXAMPLES = 12

EXPLAIN = (
    "A feature of a language model is active on some words of a text. In each example below the words on which it is "
    f"active stand between {LEFT} and {RIGHT}. Say in one short phrase what these words have in common. Answer with "
    "the phrase alone."
)
DETECT = (
    "A feature of a language model is described as: {text}\n\nText: {passage}\n\n"
    "Is the feature active somewhere in this text? Answer Yes or No."
)
FUZZ = (
    "A feature of a language model is described as: {text}\n\nIn this text some words stand between << and >>:\n"
    "{passage}\n\nAre these the words on which the feature is active? Answer Yes or No."
)
SIMULATE = (
    "A feature of a language model is described as: {text}\n\nText, split into numbered tokens:\n{passage}\n\n"
    "How active is the feature at each token, from 0 to 10? Most are 0. Answer with one line for each token that is "
    'not 0, as "number: activation".'
)


def marked(passage: Passage, marks: Bool[Tensor, " length"], words: Words) -> str:
    """The text of a passage with the marked tokens between LEFT and RIGHT, neighbours together."""
    text, inside = "", False
    for word, mark in zip(words(passage.tokens.tolist()), marks.tolist(), strict=True):
        space = word[: len(word) - len(word.lstrip())]
        if mark != inside:
            text += (space + LEFT + word[len(space) :]) if mark else RIGHT + word
        else:
            text += word
        inside = mark
    return " ".join((text + RIGHT * inside).split())


def plain(passage: Passage, words: Words) -> str:
    return " ".join("".join(words(passage.tokens.tolist())).split())


def explain_by_chat(chat: Chat, material: Material, words: Words, max_tokens: int = 40) -> Explanation:
    """What the model says that the strongest of the shown passages have in common."""
    active = [passage for passage in material.shown if passage.activations.any()]
    examples = "\n".join(
        f"{i}. {marked(passage, passage.activations > SHARE * material.largest, words)}"
        for i, passage in enumerate(active[:EXAMPLES], 1)
    )
    said = chat.answer([{"role": "user", "content": f"{EXPLAIN}\n\n{examples}"}], max_tokens)
    return Explanation(said.splitlines()[0].strip() if said else "")


@dataclass(frozen=True)
class ChatJudge:
    """A model that reads the explanation, and the passage as text."""

    chat: Chat
    words: Words

    def active(self, explanation: Explanation, passage: Passage) -> float:
        return self._yes(DETECT.format(text=explanation.text, passage=plain(passage, self.words)))

    def right(self, explanation: Explanation, passage: Passage, marks: Bool[Tensor, " length"]) -> float:
        return self._yes(FUZZ.format(text=explanation.text, passage=marked(passage, marks, self.words)))

    def simulate(self, explanation: Explanation, passage: Passage) -> Float[Tensor, " length"]:
        """What the model writes down, token by token: 0 where it says nothing, and where it says no number."""
        texts = self.words(passage.tokens.tolist())
        lines = "\n".join(f"{i}: {text.strip()}" for i, text in enumerate(texts, 1))
        said = self.chat.answer(_user(SIMULATE.format(text=explanation.text, passage=lines)), 4 * len(texts))
        found = torch.zeros(len(texts))
        for number, activation in re.findall(r"^\s*(\d+)\s*:.*?(\d+(?:\.\d+)?)\s*$", said, flags=re.MULTILINE):
            if 1 <= int(number) <= len(texts):
                found[int(number) - 1] = min(float(activation), 10.0)
        return found

    def _yes(self, question: str) -> float:
        return self.chat.weigh(_user(question), ["Yes", "No"])[0]


def _user(text: str) -> Messages:
    return [{"role": "user", "content": text}]
