"""Words whose letter one feature tells, but for those that a feature of their own has absorbed; and an SAE of them that
is right by construction. Whatever finds absorption must find it here, and nowhere else.

    sae, words, taken = planted_absorption(lambda word, letter: letter == 0 and word % 3 == 0)
    feature_absorption(sae, words).of("a").full          those of `taken` that are for test
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import one_hot

from sae_tutorial.autoencoder.dictionaries import Dictionary
from sae_tutorial.evaluation.examples import WordExamples
from sae_tutorial.evaluation.ground_truth import random_directions

D, WORDS, LETTERS, STRENGTH = 96, 240, 3, 4.0


def planted_absorption(
    absorbed: Callable[[int, int], bool] = lambda word, letter: False, left_to_main: float = 0.0
) -> tuple[Dictionary, WordExamples, Bool[Tensor, " words"]]:
    """Words that are a letter and a direction of their own; a dictionary with a feature for each letter, these first,
    and one for each word; and which words are absorbed.

    Where a word is absorbed, its own feature carries the letter too, all but the part that is `left_to_main`. One word
    in four has no letter of interest: letter = LETTERS.
    """
    letters, own = random_directions(LETTERS, D, seed=1), random_directions(WORDS, D, seed=2)
    own = own - own @ torch.linalg.pinv(letters) @ letters  # a word says nothing of letters
    letter = torch.arange(WORDS) % (LETTERS + 1)
    has = one_hot(letter, LETTERS + 1)[:, :LETTERS].bool()
    x = STRENGTH * has.float() @ letters + 2 * own
    taken = torch.tensor([bool(absorbed(word, int(letter[word]))) for word in range(WORDS)])
    left = torch.where(taken, left_to_main, 1.0)
    codes = torch.zeros(WORDS, LETTERS + WORDS)
    codes[:, :LETTERS] = STRENGTH * has * left[:, None]
    carried = 2 * own + STRENGTH * (1 - left)[:, None] * (has.float() @ letters)
    length = carried.norm(dim=1)
    codes[torch.arange(WORDS), LETTERS + torch.arange(WORDS)] = length
    directions = torch.cat([letters, carried / length[:, None]])

    def encode(x_ND: Float[Tensor, "n d"]) -> Float[Tensor, "n features"]:
        return codes[torch.cdist(x_ND, x).argmin(1)]

    test = torch.rand(WORDS, generator=torch.Generator().manual_seed(3)) < 0.3
    words = WordExamples(tuple("abc"), x, torch.arange(WORDS), has, test)
    return Dictionary("planted", encode, directions, torch.zeros(D)), words, taken
