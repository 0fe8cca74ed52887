"""Several hooks of a model replaced in the same forward pass: every MLP by its transcoder, for example.

Each SAE or transcoder reads what the model makes with those before it in place, so their errors add up, or grow. What
is measured is what `evaluate` measures of a single one, and so are the tokens that are left as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sae_tutorial.activations.arguments import as_whole
from sae_tutorial.activations.forward import check_hook_name, read_hooks
from sae_tutorial.activations.kept_text import KeptText, checked_tokens, special_ids
from sae_tutorial.activations.massive import checked_max_norm
from sae_tutorial.activations.memory import at_once
from sae_tutorial.autoencoder.sae import SparseAutoencoder
from sae_tutorial.evaluation import splicing
from sae_tutorial.evaluation.fidelity import Recovered, check_sae

CHANGES = ("spliced", "zero", "mean")


@dataclass(frozen=True, eq=False)
class Together(Recovered):
    """What `evaluate_together` found, in nats.

    ce_clean, ce_spliced, ce_zero, ce_mean
                cross-entropy of the next token: the model as it is, with the SAEs in place, and with 0 or its mean in
                the place of each hook that they replace
    kl, kl_zero, kl_mean
                KL(clean ‖ spliced), and the same for the two ablations
    left_out    (n, 3) float64, massive tokens, which were left as they are and not counted: row, column, and norm in
                units of the median norm
    per_row     name -> (n,) float64, sums over each row of the text: `tokens`, `predictions`, and those of ce_… and
                kl…. For a bootstrap over rows
    `recovered`, `recovered_mean` and `kl_recovered` are those of an `Evaluation`.
    """

    left_out: Float[Tensor, "n 3"]
    per_row: dict[str, Float[Tensor, " rows"]]


@torch.no_grad()
def evaluate_together(
    saes: Sequence[SparseAutoencoder],
    model: Any,
    tokens: Int[Tensor, "n context"],
    *,
    batch_size: int | None = None,
    bos_id: int | Literal["auto", "any"] | None = "auto",
    pad_id: int | Literal["auto"] | None = "auto",
    max_norm: float | None = 10.0,
) -> Together:
    """What the model predicts with all of `saes` in place, each at the hooks that it knows.

    Arguments are those of `evaluate`. Raises ValueError for an SAE that does not know its hooks, for two that replace
    the same one, and for what `evaluate` refuses about the model, the tokens and the hooks.
    """
    if isinstance(saes, SparseAutoencoder):
        raise TypeError("saes must be a list of SAEs, got a single one: put it in a list")
    saes = list(saes)
    if not saes:
        raise ValueError("saes is empty: give at least one")
    splicing.stand_ins(saes)  # refuses those that do not know their hooks, and two for one hook
    hooks = [splicing.read_and_replaced(sae) for sae in saes]
    for name in {name for pair in hooks for name in pair}:
        check_hook_name(model, name)
    for sae, (in_hook, _) in zip(saes, hooks):
        check_sae(sae, model, in_hook, sae.target_hook_name, False)
    text = KeptText.of(checked_tokens(tokens, model), *special_ids(model, bos_id, pad_id))
    for sae, (in_hook, out_hook) in zip(saes, hooks):
        splicing.check_width(model, text, in_hook, sae.config.d_in, "d_in")
        splicing.check_width(model, text, out_hook, sae.config.width_out, "d_out")
    if batch_size is None:
        batch_size = at_once(model.cfg.device, 3 * 4 * text.context * model.cfg.d_vocab)  # as many tables of logits
    batch_size, max_norm = as_whole("batch_size", batch_size, least=1), checked_max_norm(max_norm)
    names = tuple(dict.fromkeys(name for pair in hooks for name in pair))
    surveyed = splicing.Surveyed.of(model, text, names, max_norm, batch_size)
    means = {out_hook: surveyed.moments[out_hook].mean.float() for _, out_hook in hooks}
    per_row = {name: torch.zeros(len(text.tokens)).double() for name in ("tokens", "predictions", *_measures())}
    with read_hooks(model, (), fused=surveyed.fused):  # eval mode, without gradients
        for part, rows in surveyed.pieces(model.cfg.device):
            instead = {"spliced": splicing.stand_ins(saes, rows.replaced)}
            for name, new in (
                ("zero", {hook: torch.zeros_like(mean) for hook, mean in means.items()}),
                ("mean", means),
            ):
                instead[name] = [(hook, splicing.replacing(rows.replaced, x)) for hook, x in new.items()]
            for name, sums in _of_rows(model, rows, instead).items():
                per_row[name][part] = sums
    surveyed.warn(max_norm, stacklevel=2)
    per = {name: per_row["predictions" if name.startswith("ce") else "tokens"].sum() for name in _measures()}
    means_of = {name: float(per_row[name].sum() / n) if n else float("nan") for name, n in per.items()}
    return Together(**means_of, left_out=surveyed.left_out, per_row=per_row)


def _measures() -> list[str]:
    return ["ce_clean", *("ce_" + name for name in CHANGES), "kl", "kl_zero", "kl_mean"]


def _of_rows(model: Any, rows: splicing.Rows, instead: dict[str, list]) -> dict[str, Float[Tensor, " rows"]]:
    """Sums over each row: losses and divergences with each set of hooks in place."""
    clean_NV = splicing.log_probs(model, rows)
    sums = {"tokens": rows.kept.sum(1).double().cpu(), "predictions": rows.has_next.sum(1).double().cpu()}
    sums["ce_clean"] = rows.sums(splicing.cross_entropies(clean_NV, rows), rows.has_next)
    for name, hooks in instead.items():
        changed_NV = splicing.log_probs(model, rows, hooks)
        sums["ce_" + name] = rows.sums(splicing.cross_entropies(changed_NV, rows), rows.has_next)
        sums["kl" if name == "spliced" else "kl_" + name] = rows.sums(splicing.divergence(clean_NV, changed_NV))
    return sums
