"""Can a few features change one attribute of an activation and leave the others as they are?

    data = attributed(x, {"name": names, "place": places, "object": objects})      activations, and what is true of each
    found = disentanglement(sae, data, ns=(2, 5, 10))
    found.cause(5), found.isolation(5), found.score(5)                             means over attributes
    disentanglement(principal_axes(data), data)                                    dense baseline, without an SAE

RAVEL's question (Huang et al. 2024; in SAEBench, Karvonen et al. 2025). Take a base and a source that differ in all
attributes, and give the base the source's codes in the n features that were chosen for attribute A:

    x' = x_base + Σ_{f∈A} (z_f(source) − z_f(base)) d_f
    cause      how often A is read as the source's value
    isolation  how often the other attributes are still read as the base's, averaged over them
    score      the mean of the two. Doing nothing and swapping all both score a half

What differs: attributes are read from x' by linear probes, where RAVEL asks the model in words, of which ours has too
few; so "is read as" means that the direction is there, not that the model uses it. Features are chosen by how far they
move the reading of A from the base's value to the source's, less what they move the others; SAEBench trains a mask of
features by gradients through the model. What the SAE does not reconstruct of the base stays in x'; SAEBench leaves it
out. Cause and isolation are measured on the same pairs, and examples are used of which all attributes are read rightly;
SAEBench draws pairs for each, which differ in the attribute that is asked for, of prompts that are answered rightly.

Letters of shapes: N examples, D width of an activation, F features, A attributes, V values, P pairs.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import one_hot

from sae_tutorial.activations.arguments import as_whole
from sae_tutorial.autoencoder.dictionaries import Dictionary, principal_directions
from sae_tutorial.autoencoder.sae import SparseAutoencoder
from sae_tutorial.evaluation.examples import check_table, check_width, dictionary_of, each_size, in_pieces
from sae_tutorial.evaluation.probing import LinearProbe, logistic_regression

Reader = tuple[LinearProbe, Tensor]  # and the values that its questions are about
DRAWS = 32  # of pairs for each that is wanted
READER_STEPS = 100  # of a probe for each value, which are compared with each other


@dataclass(frozen=True, eq=False)
class Attributed:
    """Activations, and the number of the value that each has of each attribute."""

    names: tuple[str, ...]
    x: Float[Tensor, "examples d"]
    value: Int[Tensor, "examples attributes"]
    test: Bool[Tensor, " examples"]

    def __post_init__(self) -> None:
        check_table("attributed", self.x, test=self.test)
        if len(self.names) < 2:
            raise ValueError(
                f"{len(self.names)} attributes: two or more are needed, for one to be isolated from others"
            )


@dataclass(frozen=True, eq=False)
class Disentanglement:
    """What interventions did.

    names       the attributes
    read        share of test examples of which a probe reads each attribute rightly
    features    n -> for each attribute, those that were chosen: n, or fewer where fewer speak for it
    caused      n -> for each attribute, of each pair whether it is read as the source's
    isolated    n -> for each attribute, of each pair the share of the other attributes that are read as the base's
    held        for each attribute, how often it is read as the source's with all features swapped: what the SAE holds
    """

    names: tuple[str, ...]
    read: Float[Tensor, " attributes"]
    features: dict[int, list[Int[Tensor, " chosen"]]]
    caused: dict[int, list[Bool[Tensor, " pairs"]]]
    isolated: dict[int, list[Float[Tensor, " pairs"]]]
    held: Float[Tensor, " attributes"]

    def by_attribute(self, n: int) -> Float[Tensor, "attributes 2"]:
        """Cause and isolation of each."""
        if n not in self.caused:
            raise ValueError(f"n={n!r}: features were swapped in numbers of {', '.join(map(str, self.caused))}")
        pairs = zip(self.caused[n], self.isolated[n])
        return torch.stack([torch.stack([c.double().mean(), i.double().mean()]) for c, i in pairs])

    def cause(self, n: int) -> float:
        return float(self.by_attribute(n)[:, 0].mean())

    def isolation(self, n: int) -> float:
        return float(self.by_attribute(n)[:, 1].mean())

    def score(self, n: int) -> float:
        """SAEBench's disentanglement_score, of n features for each attribute; higher is better."""
        return float(self.by_attribute(n).mean())


def attributed(
    x: Float[Tensor, "examples d"],
    values: Mapping[str, Sequence[Hashable] | Tensor],
    *,
    test_share: float = 0.3,
    seed: int = 0,
) -> Attributed:
    """Activations with the values of their attributes, a random share of them for test.

    Raises ValueError for fewer than two attributes, lists of another length than x, an attribute with one value alone,
    and a share outside (0, 1).
    """
    if len(values) < 2 or not 0 < test_share < 1:
        raise ValueError(f"{len(values)} attributes, test_share={test_share!r}: two or more, and a share within (0, 1)")
    numbers = []
    for name, given in values.items():
        of = given.tolist() if isinstance(given, Tensor) else given
        order = {value: place for place, value in enumerate(dict.fromkeys(of))}
        if len(of) != len(x) or len(order) < 2:
            raise ValueError(f"{name}: {len(of)} values, {len(order)} of them different, for {len(x)} activations")
        numbers.append(torch.tensor([order[value] for value in of]))
    test = torch.zeros(len(x), dtype=torch.bool)
    chosen = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[: round(test_share * len(x))]
    test[chosen] = True
    return Attributed(tuple(values), x, torch.stack(numbers, 1), test)


def disentanglement(
    sae: SparseAutoencoder | Dictionary,
    data: Attributed,
    ns: Sequence[int] = (1, 2, 5, 10, 20),
    *,
    n_pairs: int = 1000,
    seed: int = 0,
) -> Disentanglement:
    """Cause and isolation with n features for each attribute; features are chosen on training examples, swapped on
    pairs of test examples (up to `n_pairs`, the same for each attribute).

    Raises ValueError for fewer than two attributes, numbers of features that are none, activations of another width,
    and where no two examples, of which all is read rightly, differ in all attributes.
    """
    dictionary, ns = dictionary_of(sae), each_size("ns", ns)
    check_width(dictionary, data.x)
    n_pairs, train = as_whole("n_pairs", n_pairs, least=1), ~data.test
    if not ns:
        raise ValueError("ns is empty; say how many features are to be swapped")
    readers = [reader_of(data.x[train], data.value[train, a]) for a in range(len(data.names))]
    read_NA = read_by(readers, data.x[data.test])
    right_NA = read_NA == data.value[data.test]
    known = right_NA.all(1).nonzero()[:, 0]
    x_ND, value_NA = data.x[data.test][known], data.value[data.test][known]
    order = _order(_codes(dictionary, data.x[train]), data, readers, dictionary)
    codes_NF = _codes(dictionary, x_ND)
    features, caused, isolated = ({n: list[Tensor]() for n in ns} for _ in range(3))
    base, source = different_pairs(value_NA, n_pairs, torch.Generator().manual_seed(seed))
    for a in range(len(data.names)):
        others = torch.arange(len(data.names)) != a
        for n in ns:
            chosen = order[a][:n]
            change = (codes_NF[source][:, chosen] - codes_NF[base][:, chosen]) @ dictionary.directions[chosen]
            now_PA = read_by(readers, x_ND[base] + change)
            features[n].append(chosen)
            caused[n].append(now_PA[:, a] == value_NA[source, a])
            isolated[n].append((now_PA == value_NA[base])[:, others].double().mean(1))
    all_swapped_ND = x_ND[base] + (codes_NF[source] - codes_NF[base]) @ dictionary.directions
    held_A = (read_by(readers, all_swapped_ND) == value_NA[source]).double().mean(0)
    return Disentanglement(data.names, right_NA.double().mean(0), features, caused, isolated, held_A)


def reader_of(x_ND: Float[Tensor, "n d"], value_N: Int[Tensor, " n"]) -> Reader:
    """A probe of one attribute, for `read_by`."""
    values = value_N.unique()
    return logistic_regression(x_ND, value_N[:, None] == values, steps=READER_STEPS), values


def read_by(readers: Sequence[Reader], x_ND: Float[Tensor, "n d"]) -> Int[Tensor, "n attributes"]:
    """The value of each attribute that its probe reads."""
    return torch.stack([values[probe(x_ND).argmax(1)] for probe, values in readers], dim=1)


def different_pairs(value_NA: Int[Tensor, "n attributes"], n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Up to n pairs of examples that differ in all attributes, drawn at random: what differs in one alone would be
    isolated in the others whatever one does."""
    drawn = torch.randint(max(1, len(value_NA)), (2, DRAWS * n), generator=generator)
    if len(value_NA):
        drawn = drawn[:, (value_NA[drawn[0]] != value_NA[drawn[1]]).all(1)]
    if not len(value_NA) or not drawn.shape[1]:
        raise ValueError("data: no two test examples differ in all attributes and are read rightly; give more examples")
    return drawn[0, :n], drawn[1, :n]


def principal_axes(data: Attributed) -> Dictionary:
    """No SAE: the principal directions of the training examples, which need no labels either. Where an attribute varies
    little, the means of its values lie in directions that others vary in as well; these do not."""
    x_ND = data.x[~data.test]
    return Dictionary.of_axes("PCA", principal_directions(x_ND), x_ND.mean(0))


# ---------------------------------------------------------------------- inside


def _codes(dictionary: Dictionary, x_ND: Float[Tensor, "n d"]) -> Float[Tensor, "n features"]:
    return torch.cat([dictionary.encode(part) for part in in_pieces(dictionary, x_ND)])


def _means(x_NE: Float[Tensor, "n e"], value_N: Int[Tensor, " n"]) -> tuple[Float[Tensor, "v e"], Float[Tensor, " v"]]:
    """Of each value that occurs: the mean, and its share of the examples."""
    is_NV = one_hot(value_N).to(x_NE.dtype)
    is_NV = is_NV[:, is_NV.any(0)]
    return (is_NV.T @ x_NE) / is_NV.sum(0)[:, None], is_NV.mean(0)


def _order(
    codes_NF: Float[Tensor, "n features"], data: Attributed, readers: Sequence[Reader], dictionary: Dictionary
) -> list[Int[Tensor, " features"]]:
    """For each attribute the features that move its reading further than they move the others on average, the best
    first. How far: the share of the way from a base's value to a source's, on average over all pairs; of all features
    of a perfect SAE these sum to 1."""
    train, moved = ~data.test, []
    for a, (probe, _) in enumerate(readers):
        value_N = data.value[train, a]
        codes_VF, share_V = _means(codes_NF, value_N)
        x_VD, _ = _means(data.x[train], value_N)
        whole = (share_V[:, None] * (x_VD - share_V @ x_VD) * probe.weight.T).sum()
        weights_VF = (dictionary.directions @ probe.weight).T
        moved.append((share_V[:, None] * (codes_VF - share_V @ codes_VF) * weights_VF).sum(0) / whole)
    moved_AF = torch.stack(moved)
    gain_AF = moved_AF - (moved_AF.sum(0) - moved_AF) / (len(readers) - 1)
    order_AF = gain_AF.argsort(dim=1, descending=True, stable=True)
    return [order_F[gain_F[order_F] > 0] for gain_F, order_F in zip(gain_AF, order_AF)]
