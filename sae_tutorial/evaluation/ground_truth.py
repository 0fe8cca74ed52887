"""Data whose features are known, and how well a dictionary finds them again: judges that a language model cannot give.

Letters of shapes: B tokens, N true directions, F rows of a dictionary, D dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor


def generator_of_data(seed: int, device: torch.device | str = "cpu") -> torch.Generator:
    """For what a model is to find. Models draw their first weights from their own seed; the numbers here are others,
    whatever that seed: else a model would start at the truth that it is meant to find."""
    return torch.Generator(device).manual_seed(seed + 1_000_003)


def random_directions(n: int, d: int, seed: int = 0) -> Float[Tensor, "n d"]:
    """`n` unit vectors in `d` dimensions, each drawn evenly from the sphere, by `generator_of_data`."""
    return torch.nn.functional.normalize(torch.randn(n, d, generator=generator_of_data(seed)), dim=1)


def sparse_strengths(
    n_tokens: int, frequency: float | Float[Tensor, " n"], n: int | None = None, seed: int = 0
) -> Float[Tensor, "tokens n"]:
    """How strong each feature is in each token: on with its `frequency`, and then uniform in [0.5, 1.5], else 0.

    `frequency` is one number for each feature, or one for all `n` of them. Features are independent of each other.
    A feature that is on is never faint, so that "on or off?" has an answer: our choice.
    Raises ValueError for a frequency outside (0, 1], and where the number of features is not given, or given twice.
    """
    if isinstance(frequency, Tensor) != (n is None):
        raise ValueError("give n with one frequency for all features, and leave it away with a frequency for each")
    p_N = frequency if isinstance(frequency, Tensor) else torch.full((n or 0,), float(frequency))
    if not ((p_N > 0) & (p_N <= 1)).all():
        raise ValueError(f"frequency spans [{p_N.min():.3g}, {p_N.max():.3g}]; it must lie in (0, 1]")
    generator = torch.Generator().manual_seed(seed)
    on_BN = torch.rand(n_tokens, len(p_N), generator=generator) < p_N
    return on_BN * (0.5 + torch.rand(n_tokens, len(p_N), generator=generator))


def best_cosines(directions: Float[Tensor, "n d"], dictionary: Float[Tensor, "features d"]) -> Float[Tensor, " n"]:
    """For each direction, the largest cosine with a row of the dictionary: 1 if the dictionary has it.

    Signs count: a row that points the other way has not found the direction. Norms do not.
    """
    return torch.cat([part.amax(1) for part in cosine_blocks(directions, dictionary)])


def cosine_blocks(
    directions: Float[Tensor, "n d"], dictionary: Float[Tensor, "features d"]
) -> Iterator[Float[Tensor, "some features"]]:
    """The cosine of every direction with every row of the dictionary, some directions at a time."""
    rows, targets = (torch.nn.functional.normalize(m.detach(), dim=1) for m in (dictionary, directions))
    return (part @ rows.T for part in targets.split(4096))


def mean_max_cosine(directions: Float[Tensor, "n d"], dictionary: Float[Tensor, "features d"]) -> float:
    """MMCS: the mean over directions of the best cosine in the dictionary. Not symmetric: what is asked is whether the
    dictionary has the directions, not whether it has others besides.

    Random dictionaries have an MMCS well above 0 that grows with their size: compare with `random_directions`.
    Source: Sharkey, Braun & Millidge 2022.
    """
    return float(best_cosines(directions, dictionary).mean())


def mutual_neighbours(one: Float[Tensor, "features d"], other: Float[Tensor, "others d"], cosine: float = 0.7) -> float:
    """The share of the rows of `one` whose nearest row of `other` (by cosine, at least `cosine`) has them as its own
    nearest row: a pairing in which no row serves twice, without solving an assignment.

    Rows that never learned anything count as found by one of the two alone, as they are.
    """
    best, nearest = zip(*(part.max(1) for part in cosine_blocks(one, other)))
    back = torch.cat([part.argmax(1) for part in cosine_blocks(other, one)])
    nearest_F = torch.cat(nearest)
    mutual_F = (back[nearest_F] == torch.arange(len(one), device=back.device)) & (torch.cat(best) >= cosine)
    return float(mutual_F.float().mean())
