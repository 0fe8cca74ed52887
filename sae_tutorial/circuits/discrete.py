"""Discrete circuits: which heads, and which pairs of heads, do something on one kind of prompts and not on another.

    outputs_EHd = head_outputs(model, prompts)            what each head puts together at END
    sae         = fit(untrained(outputs_EHd), outputs_EHd)     a small SAE of all heads' outputs
    codes_EH    = codes_of(sae, outputs_EHd)              each output as one integer: its strongest latent
    node_scores(codes_EH, positive_E)                     for each head the codes that only positives have, counted
    pair_scores(codes_EH, positive_E)                     the same for each pair of heads and their pairs of codes

No gradient of the model is taken and no head is patched: heads are scored by how the codes of their outputs differ
between positive prompts, on which the model does the task, and negative ones, on which there is nothing to do.
`edges.roc` says how well scores find the heads of a circuit that is known. Source: O'Neill & Bui 2024
(arXiv 2405.12522); `expected_scores`, what labels drawn at random would give, is ours.

Letters of shapes: E examples (prompts), H heads in the order of `all_heads`, d width of a head, F latents.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from sae_tutorial.activations.arguments import as_number, as_whole
from sae_tutorial.autoencoder.config import SAEConfig
from sae_tutorial.autoencoder.sae import SparseAutoencoder
from sae_tutorial.circuits.patching import activations
from sae_tutorial.circuits.prompts import Prompts, at

LATENTS, L1, STEPS, LR = 200, 0.02, 500, 1e-3  # theirs, but for the penalty: see `fit`
SILENT = -1  # the code of an output at which no latent is active


def head_outputs(model: Any, prompts: Prompts, where: str | None = "END") -> Float[Tensor, "examples heads d"]:
    """The output z of every head, before W_O, at a named position of each prompt; with `where=None` the mean over all
    positions up to END.

    Raises ValueError for a position that the prompts do not name.
    """
    if where is not None and where not in prompts.positions:
        raise ValueError(f"where={where!r}: these prompts name {', '.join(prompts.positions)}; None is the mean of all")
    names = [f"blocks.{layer}.attn.hook_z" for layer in range(model.cfg.n_layers)]
    acts = activations(model, prompts, names).values()
    if where is not None:
        return torch.cat([at(z_EPHd, prompts.positions[where]) for z_EPHd in acts], dim=1)
    end_E1 = prompts.positions["END"][:, None]
    weight_EP = (torch.arange(prompts.tokens.shape[1], device=end_E1.device) <= end_E1) / (end_E1 + 1)
    return torch.cat([torch.einsum("ep,ephd->ehd", weight_EP.to(z_EPHd), z_EPHd) for z_EPHd in acts], dim=1)


# ---------------------------------------------------------------------- an SAE that is read as a code


@torch.no_grad()
def untrained(outputs: Float[Tensor, "examples heads d"], latents: int = LATENTS, seed: int = 0) -> SparseAutoencoder:
    """A ReLU SAE with random directions, centred and scaled to these outputs, all heads of all examples together.

    The decoder's rows have unit norm and the encoder subtracts the decoder's bias, as theirs. That inputs are centred,
    and scaled so that E|x|² = d, is ours.

    Raises ValueError for outputs that are not three-dimensional, that hold NaN or infinity, or that are all the same.
    """
    x_Nd = _rows(outputs)
    config = SAEConfig(x_Nd.shape[1], as_whole("latents", latents, least=1), rule="relu")
    sae = SparseAutoencoder(config, seed=seed).to(x_Nd)
    sae.mean.copy_(x_Nd.mean(0))
    spread = float((x_Nd - sae.mean).square().mean().sqrt())
    if not spread > 1e-6 * float(x_Nd.abs().max()):
        raise ValueError(f"outputs[…] are all {x_Nd[0].tolist()[:2]}…: there is nothing to encode; give other examples")
    sae.scale.fill_(spread)
    return sae


def fit(
    sae: SparseAutoencoder,
    outputs: Float[Tensor, "examples heads d"],
    l1: float = L1,
    steps: int = STEPS,
    lr: float = LR,
) -> SparseAutoencoder:
    """Trains `sae` in place on all outputs at once, by Adam, and returns it:

        loss = mean (x − x̂)² + l1 · mean z         means over examples and heads, and over coordinates or latents

    They take the mean over examples and heads and the *sum* over latents of z, and do not scale x: their penalty is
    200 times ours for the same `l1`. (`training.train` has such a sum, and batches, a warm-up and a decay.)

    Raises ValueError for an `l1` below 0, an `lr` that is not above 0, and outputs that `untrained` refuses.
    """
    if not (as_number("l1", l1) >= 0 and as_number("lr", lr) > 0):
        raise ValueError(f"l1={l1!r}, lr={lr!r}: take an l1 of 0 or more, and an lr above 0")
    with torch.inference_mode(False), torch.enable_grad():
        u_Nd = sae.normalise(_rows(outputs).clone())
        adam = torch.optim.Adam([sae.W_enc, sae.b_enc, sae.W_dec, sae.b_dec], lr=lr)
        for _ in range(as_whole("steps", steps)):
            z_NF = sae.preactivations(u_Nd).relu()
            loss = (z_NF @ sae.W_dec + sae.b_dec - u_Nd).square().mean() + l1 * z_NF.mean()
            adam.zero_grad()
            loss.backward()
            adam.step()
            sae.W_dec.data.copy_(normalize(sae.W_dec.data, dim=1))
    return sae


@torch.no_grad()
def codes_of(sae: SparseAutoencoder, outputs: Float[Tensor, "examples heads d"]) -> Int[Tensor, "examples heads"]:
    """Each output as one integer: the number of its strongest latent. SILENT (−1) where none is active, so that silence
    is not taken for latent 0 (ours). Raises what `untrained` raises for outputs of the wrong form."""
    strongest_N, codes_N = sae.affinities(_rows(outputs)).max(1)
    return torch.where(strongest_N > 0, codes_N, SILENT).view(outputs.shape[:2])


def _rows(outputs: Tensor) -> Float[Tensor, "rows d"]:
    """All heads of all examples, one after the other."""
    if outputs.dim() != 3 or not outputs.numel():
        raise ValueError(f"outputs must be (examples, heads, d), got shape {tuple(outputs.shape)}; see head_outputs")
    if not outputs.isfinite().all():
        example, head = (~outputs.isfinite()).any(2).nonzero()[0].tolist()
        raise ValueError(f"outputs[{example}, {head}] holds NaN or infinity; leave that example out")
    return outputs.flatten(0, 1)


# ---------------------------------------------------------------------- what only positives have


def node_scores(
    codes: Int[Tensor, "examples heads"], positive: Bool[Tensor, " examples"], share: bool = False
) -> Float[Tensor, " heads"]:
    """For each head, |codes of positives − codes of negatives|: how many codes it has on positives and on no negative.

    `share` divides by the number of different codes that it has at all. A softmax over heads, which they apply, changes
    no order and so no ROC; it is left out.

    Raises ValueError for codes that are no whole numbers, and unless each example has a label and both kinds are there.
    """
    return _scores(codes, _labels(codes, positive), share)


def pair_scores(
    codes: Int[Tensor, "examples heads"], positive: Bool[Tensor, " examples"], share: bool = False
) -> Float[Tensor, "heads heads"]:
    """The same for each pair of heads: how many pairs of codes come together on a positive and on no negative. The
    table is symmetric, its diagonal is `node_scores`. Raises what `node_scores` raises."""
    return _scores(pairs(codes), _labels(codes, positive), share)


def pairs(codes: Int[Tensor, "examples heads"]) -> Int[Tensor, "examples heads heads"]:
    """Each pair of heads' codes as one integer."""
    known, place_EH = codes.unique(return_inverse=True)
    return place_EH[:, :, None] * len(known) + place_EH[:, None, :]


def different(codes: Int[Tensor, "examples heads *more"]) -> Float[Tensor, " heads *more"]:
    """How many different codes each head, or pair of heads, has."""
    return _scores(codes, torch.ones(len(codes), dtype=torch.bool, device=codes.device), False)


def expected_scores(codes: Int[Tensor, "examples heads *more"], n_positive: int) -> Float[Tensor, " heads *more"]:
    """The mean of `node_scores` over all ways to call `n_positive` examples positive: what the labels have no part in.
    Of `pairs` of codes, that of `pair_scores`. Ours.

    A code that c of E examples have is counted if all c are among the P positives, so its chance is

        C(E − c, P − c) / C(E, P)

    and is large for rare codes: a head that says something else on every example scores about P with any labels.

    Raises ValueError unless 0 < n_positive < E.
    """
    E, P = len(codes), as_whole("n_positive", n_positive)
    if not 0 < P < E:
        raise ValueError(f"n_positive={P}: of {E} examples take 1 to {E - 1}")
    chance = [math.comb(E - c, P - c) / math.comb(E, P) if c <= P else 0.0 for c in range(1, E + 1)]
    chance_E = torch.tensor(chance, device=codes.device)
    expected = torch.zeros(codes.shape[1:], device=codes.device)
    for code in codes:  # each example adds its part of its code's chance
        times = (codes == code).sum(0)
        expected += chance_E[times - 1] / times
    return expected


def _scores(codes: Tensor, positive: Bool[Tensor, " examples"], share: bool) -> Tensor:
    """How many codes each thing has on positives and on no negative, each counted where it comes first."""
    ours, theirs = codes[positive], codes[~positive]
    count = torch.zeros(codes.shape[1:], device=codes.device)
    for i, code in enumerate(ours):
        count += ~((ours[:i] == code).any(0) | (theirs == code).any(0))
    return count / different(codes) if share else count


def _labels(codes: Tensor, positive: Any) -> Bool[Tensor, " examples"]:
    if codes.dim() != 2 or codes.is_floating_point():
        raise ValueError(f"codes must be whole numbers (examples, heads), got {codes.dtype} {tuple(codes.shape)}")
    positive_E = torch.as_tensor(positive, device=codes.device).bool()
    if positive_E.shape != codes.shape[:1]:
        raise ValueError(
            f"positive has shape {tuple(positive_E.shape)}; give a label for each of {len(codes)} examples"
        )
    if positive_E.all() or not positive_E.any():
        raise ValueError(f"positive: {int(positive_E.sum())} of {len(codes)} are; some of both kinds are needed")
    return positive_E
