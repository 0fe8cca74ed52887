"""Sparse probing: how well a few features of an SAE tell what a text is like, beside all coordinates of the activation.

    found = sparse_probing(sae, examples, ks=(1, 2, 5))     choose k features, fit a logistic regression on them
    found.accuracy(5), found.by_task(5)                     share of test examples that it gets right
    dense_probing(examples)                                 the same on the whole activation: what there is to be known
    dense_probing(examples, sae)                            on the reconstruction: what the SAE has kept of it
    sparse_probing(coordinates(d), examples)                k coordinates instead of k features
    sparse_probing(random_sae(sae, x), examples)            features that were never trained

Sources: Gurnee et al. 2023; the choice of features and the regression are those of SAEBench (Karvonen et al. 2025, read
at commit fd85857): the k features whose mean over positive training examples differs most from the mean over negative
ones, then scikit-learn's logistic regression as it comes (L2, C = 1), accuracy on balanced test sets. What differs:
properties of tokens and books of our own text instead of eight labelled data sets; `read_examples` leaves massive
activations out; the dense probe is the same regression, where SAEBench trains it by Adam and keeps the epoch that was
best on the test set.

Letters of shapes: N examples, D inputs, K chosen ones, C questions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import softplus

from sae_tutorial.autoencoder.dictionaries import Dictionary
from sae_tutorial.autoencoder.sae import SparseAutoencoder
from sae_tutorial.evaluation.examples import Examples, check_width, dictionary_of, each_size


@dataclass(frozen=True, eq=False)
class LinearProbe:
    """Scores x @ weight + bias, one for each question: above 0 it says yes."""

    weight: Float[Tensor, "d questions"]
    bias: Float[Tensor, " questions"]

    def __call__(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n questions"]:
        return x @ self.weight + self.bias


@dataclass(frozen=True, eq=False)
class Probing:
    """What probes of several sizes got right.

    tasks       their names
    right       size -> for each task, which of its test examples were answered rightly
    features    size -> for each task, the inputs that were chosen
    """

    tasks: tuple[str, ...]
    right: dict[int, list[Bool[Tensor, " examples"]]]
    features: dict[int, list[Int[Tensor, " chosen"]]]

    def by_task(self, k: int | None = None) -> Float[Tensor, " tasks"]:
        """The accuracy for each task with k inputs; a dense probe has one size, which need not be named."""
        if k is None and len(self.right) == 1:
            (k,) = self.right
        if k not in self.right:
            raise ValueError(f"k={k!r}: there are probes with {', '.join(map(str, self.right))} inputs")
        return torch.stack([right.double().mean() for right in self.right[k]])

    def accuracy(self, k: int | None = None) -> float:
        """The mean over tasks; for its interval, give `by_task` to `intervals.bootstrap`."""
        return float(self.by_task(k).mean())


def sparse_probing(
    sae: SparseAutoencoder | Dictionary, examples: Sequence[Examples], ks: Sequence[int] = (1, 2, 5)
) -> Probing:
    """For each task and each k: choose k features on the training examples, fit, and answer the test examples.

    Raises ValueError for no examples, a k that the SAE has not as many features for, and examples of another width.
    """
    dictionary, ks = dictionary_of(sae), each_size("ks", ks)
    if not examples or not ks:
        raise ValueError(f"{len(examples)} tasks, ks={ks}: give one or more of each")
    if max(ks) > len(dictionary.directions):
        raise ValueError(f"ks has {max(ks)}, the SAE has {len(dictionary.directions)} features")
    right: dict[int, list[Tensor]] = {k: [] for k in ks}
    features: dict[int, list[Tensor]] = {k: [] for k in ks}
    for one in examples:
        check_width(dictionary, one.tokens)
        codes_NF = one.codes(dictionary)
        order = by_mean_difference(codes_NF[~one.test], one.label[~one.test])
        for k in ks:
            chosen = order[:k]
            features[k].append(chosen)
            inputs_NK = codes_NF[:, chosen]
            right[k].append(right_answers(task_probe(one, inputs_NK), one, inputs_NK[one.test]))
    return Probing(tuple(one.name for one in examples), right, features)


def dense_probing(examples: Sequence[Examples], sae: SparseAutoencoder | Dictionary | None = None) -> Probing:
    """The same regression on all coordinates of the activation, or of its reconstruction by `sae`."""
    if not examples:
        raise ValueError("examples is empty; give one task or more")
    if sae is not None:
        dictionary = dictionary_of(sae)
        check_width(dictionary, examples[0].tokens)
        examples = [one.reconstructed(dictionary) for one in examples]
    D = examples[0].tokens.shape[1]
    right = [right_answers(task_probe(one), one, one.x[one.test]) for one in examples]
    return Probing(tuple(one.name for one in examples), {D: right}, {D: [torch.arange(D)] * len(right)})


def task_probe(of: Examples, inputs: Float[Tensor, "examples d"] | None = None) -> LinearProbe:
    """A probe of one task, fitted on its training examples: on their activations, or on other inputs."""
    inputs = of.x if inputs is None else inputs
    return logistic_regression(inputs[~of.test], of.label[~of.test, None])


def right_answers(probe: LinearProbe, of: Examples, inputs: Float[Tensor, "test d"]) -> Bool[Tensor, " test"]:
    """Which test examples the probe of a task gets right, from these inputs."""
    return (probe(inputs)[:, 0] > 0) == of.label[of.test]


def by_mean_difference(x: Float[Tensor, "n d"], label: Bool[Tensor, " n"]) -> Int[Tensor, " d"]:
    """All inputs, those first whose means over positive and over negative examples differ most; ties by number."""
    return (x[label].mean(0) - x[~label].mean(0)).abs().argsort(descending=True, stable=True)


def logistic_regression(
    x: Float[Tensor, "n d"],
    label: Bool[Tensor, "n questions"],
    l2: float = 1.0,
    weight: Float[Tensor, "n questions"] | None = None,
    steps: int = 500,
) -> LinearProbe:
    """For each question, the minimum of Σ_i weight_i · loss_i + l2 / 2 · |w|²; the bias costs nothing.

    With l2 = 1 it is what scikit-learn's LogisticRegression finds with C = 1. Found by at most `steps` steps of L-BFGS
    in float64, all questions together, on inputs that are centred and scaled (the penalty along with them, so that the
    minimum is the same). Raises ValueError for shapes that do not fit, NaN or inf, l2 that is not above 0, and a
    question whose answer is always the same.
    """
    if x.dim() != 2 or label.dim() != 2 or len(x) != len(label):
        raise ValueError(f"x is {tuple(x.shape)}, label {tuple(label.shape)}; give (n, d) and (n, questions)")
    if not x.isfinite().all() or not l2 > 0:
        raise ValueError(f"x must be finite, and l2 above 0, got l2={l2!r} and {int((~x.isfinite()).sum())} NaN or inf")
    if (label.all(0) | ~label.any(0)).any():
        raise ValueError("label: every question needs examples with yes and with no")
    x64, sign = x.detach().double(), 2 * label.double() - 1
    centre = x64.mean(0)
    scale = float((x64 - centre).square().mean().sqrt()) or 1.0
    u_ND, cost = (x64 - centre) / scale, l2 / scale**2
    many = torch.ones_like(sign) if weight is None else weight.double()
    w_DC = u_ND.new_zeros(x.shape[1], label.shape[1], requires_grad=True)
    b_C = u_ND.new_zeros(label.shape[1], requires_grad=True)
    solver = torch.optim.LBFGS(
        [w_DC, b_C],
        max_iter=steps,
        max_eval=2 * steps,
        tolerance_grad=1e-6 * len(x),
        tolerance_change=1e-13,
        line_search_fn="strong_wolfe",
    )

    def objective() -> Tensor:
        solver.zero_grad()
        loss = (many * softplus(-sign * (u_ND @ w_DC + b_C))).sum() + cost / 2 * w_DC.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        solver.step(objective)
    found = w_DC.detach() / scale
    return LinearProbe(found.to(x.dtype), (b_C.detach() - centre @ found).to(x.dtype))
