"""evaluate, evaluate_many: how well SAEs reconstruct a hook, and what the language model makes of the reconstruction.

Two passes over the text. The first reads the hook and stops there: the mean and variance of the activations. The
second runs the model four times on each batch: as it is, with the hook ablated to zero and to its mean, and, for each
SAE, with the reconstruction spliced in. Memory is that of one batch, whatever the length of the text.

Where our numbers and those of SAEBench's core evaluation (read at commit 10e0728) mean the same:

    l0, cosine, density, ce_clean, ce_spliced, kl, and their ratio to ablation (ce_loss_score, kl_div_score)

And where they do not:

    BOS and padding   neither spliced, ablated nor counted. SAEBench does not count them either, but splices them too
                      (unless exclude_special_tokens_from_reconstruction is set) and always ablates them. A model that
                      lost its first token is lost itself: ablation looks worse, and the score better.
                      `splice_bos=True` does as SAEBench does, which finds them anywhere in a row, not only at its ends
    fvu               Σ|x − x̂|² / Σ|x − mean|², with the mean of all tokens that are evaluated. There,
                      explained_variance averages 1 − |x − x̂|² / |x − mean|² token by token, with the mean of
                      a batch: tokens that happen to lie near it rule the average
    massive           so are the tokens whose activations are above `max_norm` times the median norm; SAEBench replaces
                      and counts them, where they rule sums of squares
    last tokens       a loss needs a next token, and padding is none; SAEBench counts the prediction of padding

Letters of shapes: N kept tokens of a batch, S context, D = d_in, O = d_out, V vocabulary.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from sae_tutorial.activations.arguments import arguments_of, as_whole
from sae_tutorial.activations.forward import check_hook_name, read_hooks
from sae_tutorial.activations.kept_text import KeptText, checked_tokens, special_ids
from sae_tutorial.activations.massive import checked_max_norm
from sae_tutorial.activations.memory import at_once
from sae_tutorial.activations.shards import Moments
from sae_tutorial.allocation.zipf import middle_law, zipf_shortfall
from sae_tutorial.autoencoder.sae import SparseAutoencoder
from sae_tutorial.evaluation import splicing

UNDERUSED_PART = 0.5  # of the target; see Evaluation.underused
CHANGES = ("spliced", "zero", "mean")  # of the hook
PER_ROW = ("tokens", "predictions", "error", "spread", "matches", "ce_clean", *("ce_" + name for name in CHANGES), "kl",
           "kl_zero", "kl_mean")  # fmt: skip


@dataclass(frozen=True, eq=False)
class Recovered:
    """Losses and divergences in nats, and how much of what an ablation does is undone.

    ce_clean, ce_spliced, ce_zero, ce_mean
                cross-entropy of the next token: the model as it is, with x̂ instead of x, with 0, with the mean
    kl, kl_zero, kl_mean
                KL(clean ‖ spliced), and the same for the two ablations
    """

    ce_clean: float
    ce_spliced: float
    ce_zero: float
    ce_mean: float
    kl: float
    kl_zero: float
    kl_mean: float

    @property
    def recovered(self) -> float:
        """CE loss recovered against zero-ablation, (ce_zero − ce_spliced) / (ce_zero − ce_clean): 1 is perfect."""
        return _ratio(self.ce_zero - self.ce_spliced, self.ce_zero - self.ce_clean)

    @property
    def recovered_mean(self) -> float:
        """The same against mean-ablation, the harder comparison."""
        return _ratio(self.ce_mean - self.ce_spliced, self.ce_mean - self.ce_clean)

    @property
    def kl_recovered(self) -> float:
        """1 − kl / kl_zero, SAEBench's kl_div_score."""
        return _ratio(self.kl_zero - self.kl, self.kl_zero)


@dataclass(frozen=True, eq=False)
class Evaluation(Recovered):
    """What `evaluate` found. Losses and divergences in nats, averaged over tokens.

    n_tokens    tokens that were looked at: neither BOS nor padding nor massive
    l0          features per token
    l0_std      its standard deviation over tokens: 0 where every token gets the same number
    fvu         fraction of variance unexplained, about the mean: 0 is perfect, 1 is as good as the mean
    cosine      mean cosine of x and x̂
    norm_ratio  mean |x̂| / |x|; below 1, the SAE shrinks
    ce_clean, ce_spliced, ce_zero, ce_mean
                cross-entropy of the next token: the model as it is, with x̂ instead of x, with 0, with the mean
    kl, kl_zero, kl_mean
                KL(clean ‖ spliced), and the same for the two ablations
    dead        share of features without a match among these tokens
    underused   share of features with a density below half of what a Zipf law, fitted to the middle ranks of `density`,
                gives a feature of their rank; dead ones included. NaN where too few features fire to fit a law
    density     (F,) share of tokens that match each feature
    threshold   what affinities had to exceed: a number, or (F,) one for each feature, in the units of codes. None where
                tokens or a batch have a budget instead
    left_out    (n, 3) float64, the tokens with massive activations, which were left as they are and not counted: row,
                column, and the norm there in units of the median norm
    per_row     name -> (n,) float64, for each row of the text: how many `tokens` were looked at and how many
                `predictions` were made, and the sums over them from which the numbers above are made: `error` |x − x̂|²,
                `spread` |x − mean|², `matches`, and those of ce_… and kl…. For a bootstrap over rows
    """

    n_tokens: int
    l0: float
    l0_std: float
    fvu: float
    cosine: float
    norm_ratio: float
    dead: float
    underused: float
    density: Float[Tensor, " features"]
    threshold: float | Float[Tensor, " features"] | None
    left_out: Float[Tensor, "n 3"]
    per_row: dict[str, Float[Tensor, " rows"]]

    def __repr__(self) -> str:
        tokens = f"{self.n_tokens:,} tokens"
        if len(self.left_out):
            tokens += f", {len(self.left_out):,} massive ones left as they are"
        return (
            f"Evaluation({tokens}: L0 {self.l0:.1f}, FVU {self.fvu:.4f}, CE {self.ce_clean:.3f} → "
            f"{self.ce_spliced:.3f}, recovered {self.recovered:.1%} of zero- and {self.recovered_mean:.1%} of "
            f"mean-ablation, dead {self.dead:.1%}, underused {self.underused:.1%})"
        )


def evaluate_many(
    saes: Sequence[SparseAutoencoder],
    model: Any,
    tokens: Int[Tensor, "n context"],
    hook_name: str,
    *,
    target_hook: str | None = None,
    batch_rule: bool = False,
    splice_bos: bool = False,
    batch_size: int | None = None,
    bos_id: int | Literal["auto", "any"] | None = "auto",
    pad_id: int | Literal["auto"] | None = "auto",
    max_norm: float | None = 10.0,
    progress: bool = True,
) -> list[Evaluation]:
    """`evaluate` for several SAEs of one hook: what no SAE changes (the model as it is, its ablations, the moments) is
    computed once. Arguments and errors are those of `evaluate`."""
    in_hook, out_hook = hook_name, hook_name if target_hook is None else target_hook
    for name in (in_hook, out_hook):
        check_hook_name(model, name)
    saes = list(saes)
    for sae in saes:
        check_sae(sae, model, in_hook, target_hook, batch_rule)
    text = KeptText.of(checked_tokens(tokens, model), *special_ids(model, bos_id, pad_id))
    for width in {sae.config.d_in for sae in saes}:
        splicing.check_width(model, text, in_hook, width, "d_in")
    for width in {sae.config.width_out for sae in saes if target_hook is not None}:
        splicing.check_width(model, text, out_hook, width, "d_out")
    if batch_size is None:
        tables = 4  # of logits are there at a time: clean, changed, their difference, what it weighs
        batch_size = at_once(model.cfg.device, tables * 4 * text.context * model.cfg.d_vocab)
    batch_size = as_whole("batch_size", batch_size, least=1)
    max_norm = checked_max_norm(max_norm)
    sums: list[dict[str, Any]] = [defaultdict(float) for _ in saes]
    per_row = [{name: torch.zeros(len(text.tokens)).double() for name in PER_ROW} for _ in saes]
    with tqdm(total=2 * len(text), unit=" tokens", unit_scale=True, desc="evaluate", disable=not progress) as bar:
        hooks = tuple(dict.fromkeys((in_hook, out_hook)))
        surveyed = splicing.Surveyed.of(model, text, hooks, max_norm, batch_size, bar.update)
        moments = surveyed.moments[out_hook]
        with read_hooks(model, (), fused=surveyed.fused):  # eval mode, without gradients
            for part, rows in surveyed.pieces(model.cfg.device, replace_bos=splice_bos):
                found_each = _sums(saes, model, rows, in_hook, out_hook, moments, batch_rule)
                for total, of_rows, (more, by_row) in zip(sums, per_row, found_each):
                    for name, value in more.items():
                        total[name] = total[name] + value
                    for name, value in by_row.items():
                        of_rows[name][part] = value
                bar.update(len(rows))
    surveyed.warn(max_norm, stacklevel=3)
    return [_evaluation(*one, batch_rule, surveyed.left_out) for one in zip(saes, sums, per_row)]


@arguments_of(evaluate_many)
def evaluate(sae: SparseAutoencoder, *args: Any, **options: Any) -> Evaluation:
    """Measure `sae` on text: its reconstruction of `hook_name`, and the language model's loss with that in its place.

    tokens       (n, context) int64 that the SAE was not trained on; rows may be padded on either side
    hook_name    where the SAE reads: one vector per token, heads concatenated ("blocks.1.attn.hook_z")
    target_hook  transcoders only: the hook that is predicted, and replaced
    batch_rule   allocate as in training, the tokens of a forward pass sharing one budget; the default is how an SAE
                 is used: each token by itself
    splice_bos   replace and ablate BOS too, though no SAE of ours is trained on it
    batch_size   rows per forward pass; by default so many that their logits take 64 MB (1 GB on a GPU)
    bos_id, pad_id
                 which positions are no text; as for `ActivationStore.harvest`
    max_norm     tokens whose norm, at either hook, exceeds so many times the median norm are treated like BOS: left as
                 they are, not counted, and reported (a warning, and `left_out` of the result). None spares none

    Warns if the SAE knows that it was trained on another hook. Raises ValueError for a hook that the model does not
    have, a hook of another width than the SAE, tokens of the wrong shape or range, a transcoder without target_hook
    (and the reverse), an SAE whose threshold is not measured yet, and weights that are NaN or infinite; TypeError
    for anything that is not a model, an SAE or a whole number where one is needed.
    """
    (found,) = evaluate_many([sae], *args, **options)
    return found


def check_sae(sae: Any, model: Any, in_hook: str, target_hook: str | None, batch_rule: bool) -> None:
    """What can be known before the first forward pass; see `evaluate`."""
    if not isinstance(sae, SparseAutoencoder):
        raise TypeError(f"sae must be a SparseAutoencoder, got {type(sae).__name__}; evaluate_many takes several")
    if sae.config.is_transcoder != (target_hook is not None):
        got = f"got d_out={sae.config.d_out} and target_hook={target_hook!r}"
        raise ValueError(f"target_hook is what a transcoder predicts, an SAE with d_out, and no other SAE; {got}")
    for name, weight in sae.state_dict().items():
        if weight.isnan().any() or (weight.isinf().any() and name != "threshold"):
            raise ValueError(f"sae: its {name} holds NaN or infinite numbers; load or train it again")
    # A threshold that is missing is named, and so are gradients, which are not there to choose by.
    sae.encode_normalised(torch.zeros(1, sae.config.d_in).to(sae.W_dec), batch_rule)
    for trained_on, here in ((sae.hook_name, in_hook), (sae.target_hook_name, target_hook)):
        if None not in (trained_on, here) and model.hook_dict.get(trained_on) is not model.hook_dict[here]:
            warnings.warn(f"this SAE was trained on {trained_on!r}, and is evaluated at {here!r}", stacklevel=4)


def _sums(
    saes: Sequence[SparseAutoencoder],
    model: Any,
    rows: splicing.Rows,
    in_hook: str,
    out_hook: str,
    moments: Moments,
    batch_rule: bool,
) -> list[tuple[dict[str, Any], dict[str, Tensor]]]:
    """For some rows and each SAE: what is summed over all tokens, and what over those of each row."""
    seen: dict[str, Tensor] = {}

    def keep(acts: Tensor, hook: Any, name: str) -> None:
        seen[name] = acts.flatten(2)[rows.replaced]

    clean_NV = splicing.log_probs(model, rows, [(name, partial(keep, name=name)) for name in {in_hook, out_hook}])

    def instead(name: str, new: Tensor) -> dict[str, Tensor]:
        """Loss and divergence with `new` in the place of the hook."""
        changed_NV = splicing.log_probs(model, rows, [(out_hook, splicing.replacing(rows.replaced, new))])
        kl = "kl" if name == "spliced" else "kl_" + name
        ce_N, kl_N = splicing.cross_entropies(changed_NV, rows), splicing.divergence(clean_NV, changed_NV)
        return {"ce_" + name: rows.sums(ce_N, rows.has_next), kl: rows.sums(kl_N)}

    mean_O = moments.mean.float()
    shared = {"tokens": rows.kept.sum(1), "predictions": rows.has_next.sum(1)}
    shared["ce_clean"] = rows.sums(splicing.cross_entropies(clean_NV, rows), rows.has_next)
    shared |= instead("zero", torch.zeros_like(mean_O)) | instead("mean", mean_O)
    y_NO = seen[out_hook][rows.kept[rows.replaced]]
    shared["spread"] = rows.sums((y_NO.float() - mean_O.to(y_NO.device)).square().sum(1))
    found = []
    for sae in saes:
        y_hat_NO, sums, by_row = _reconstruction(sae, seen[in_hook], seen[out_hook], rows, batch_rule)
        found.append((sums, shared | by_row | instead("spliced", y_hat_NO)))
    return found


def _reconstruction(
    sae: SparseAutoencoder, x_ND: Tensor, y_NO: Tensor, rows: splicing.Rows, batch_rule: bool
) -> tuple[Float[Tensor, "replaced d_out"], dict[str, Any], dict[str, Tensor]]:
    """ŷ of every replaced position, and what is summed about it over the kept ones, in all and row by row."""
    x_ND, y_NO = x_ND.to(sae.W_dec.device), y_NO.to(sae.W_dec.device)
    u_ND = sae.normalise(x_ND)
    codes = sae.encode_normalised(u_ND, batch_rule)
    y_hat_NO = sae.denormalise(sae.decode_normalised(codes, u_ND))
    kept = rows.kept[rows.replaced].to(y_hat_NO.device)  # all of them, unless BOS is replaced too
    y, y_hat, matched, l0 = y_NO[kept].float(), y_hat_NO[kept].float(), kept[codes.tokens], codes.l0()[kept]
    sums = {
        "uses": codes.features[matched].bincount(minlength=sae.config.d_sae).cpu(),
        "l0_squared": _total(l0.square()),
        "cosine": _total(torch.cosine_similarity(y, y_hat)),
        "norm_ratio": _total(y_hat.norm(dim=1) / y.norm(dim=1).clamp(min=1e-30)),
    }
    return y_hat_NO, sums, {"error": rows.sums((y - y_hat).square().sum(1)), "matches": rows.sums(l0)}


def _total(per_token: Float[Tensor, " n"]) -> float:
    return float(per_token.cpu().double().sum())


def _evaluation(
    sae: SparseAutoencoder, sums: dict[str, Any], per_row: dict[str, Tensor], batch_rule: bool, left_out: Tensor
) -> Evaluation:
    total = {name: float(values.sum()) for name, values in per_row.items()}
    n, per_prediction = total["tokens"], ("ce_clean", *("ce_" + name for name in CHANGES))
    density = (sums["uses"].double() / n).float()
    law = middle_law(density)
    needy = None if law is None else zipf_shortfall(density, law, UNDERUSED_PART) > 0
    how = sae.config.how
    has_budget = how.owner is not None and (batch_rule or how.thresholds is None)
    threshold = sae.threshold.detach().cpu().clone()
    return Evaluation(
        n_tokens=int(n),
        l0=(l0 := total["matches"] / n),
        l0_std=max(sums["l0_squared"] / n - l0**2, 0.0) ** 0.5,
        fvu=_ratio(total["error"], total["spread"]),
        cosine=sums["cosine"] / n,
        norm_ratio=sums["norm_ratio"] / n,
        **{name: _ratio(total[name], total["predictions"]) for name in per_prediction},
        **{name: total[name] / n for name in ("kl", "kl_zero", "kl_mean")},
        dead=float((density == 0).float().mean()),
        underused=float("nan") if needy is None else float(needy.float().mean()),
        density=density,
        threshold=None if has_budget else threshold if threshold.dim() else float(threshold),
        left_out=left_out,
        per_row=per_row,
    )


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")
