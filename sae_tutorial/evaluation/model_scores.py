"""What an explanation is worth to a language model that is not asked anything: it only reads.

    surprisal(explanation, material, model, words)                         does it make the passages likelier?
    embedding(explanation, material, mean_stream(model, texts), words)     does it lie close to them?
    intervention(explanation, 7, sae, model, prompts, scorer, largest=2.5) does what the feature writes suggest it?

The first two are AUCs over passages that the explainer has not seen, `material.active` against `material.silent`, 0.5
at chance. The third is in nats, 0 at chance, and about what the feature does rather than where it is active.

Source: Paulo et al. 2024, sections 3.3.3 to 3.3.5, D.3, D.4 and G, and the library delphi. Ours are: no examples of
descriptions with their sentences before the question; an embedding made of any language model, where they have a model
of embeddings and an instruction before the query; and interventions whose strength is counted in largest activations of
the feature, where they match the KL divergence of the next token.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize
from torch.nn.utils.rnn import pad_sequence

from sae_tutorial.activations.arguments import as_number, as_whole
from sae_tutorial.activations.forward import check_hook_name, read_hook
from sae_tutorial.activations.memory import rows_per_pass
from sae_tutorial.evaluation.chat_judge import plain
from sae_tutorial.evaluation.explanations import Explanation, Material, auc
from sae_tutorial.evaluation.feature_evidence import hook_of
from sae_tutorial.evaluation.feature_pages import Passage, Words, check_features
from sae_tutorial.evaluation.steered_text import write
from sae_tutorial.evaluation.text_losses import check_length, ids_of, losses_after, tokenizer_of

DESCRIBED = "Description: {}\n"
NEUTRAL = "Various unrelated sentences."  # what an explanation is compared with
AMPLIFIED = '<PASSAGE>\n{}\nThe above passage contains an amplified amount of "'

Embed = Callable[[Sequence[str]], Float[Tensor, "texts d"] | Float[np.ndarray, "texts d"]]


# ---------------------------------------------------------------------- surprisal


def surprisal(explanation: Explanation, material: Material, model: Any, words: Words) -> float:
    """How often the explanation helps the model more with a passage that has the feature than with one that has not
    (AUC): by how many nats per token the passage's loss falls when "Description: <explanation>" stands before it, and
    not "Description: Various unrelated sentences.". NaN without a pair of passages.

    Any language model that `load_language_model` loaded; `words` is of the model that the feature is in. Raises
    TypeError or ValueError for an explanation without text and for a model without a tokenizer.
    """
    return surprisals([explanation], material, model, words)[0]


def surprisals(explanations: Sequence[Explanation], material: Material, model: Any, words: Words) -> list[float]:
    """`surprisal` of each of several explanations, such as the feature's own and a control, on the same passages."""
    said = [_text_of(explanation) for explanation in explanations]
    active, silent = _texts(material.active, words), _texts(material.silent, words)
    if not active or not silent:
        return [math.nan] * len(said)
    without, *with_it = (
        [float(losses.mean()) for losses in losses_after(model, DESCRIBED.format(text), active + silent)]
        for text in (NEUTRAL, *said)
    )
    helped = [[before - after for before, after in zip(without, losses)] for losses in with_it]
    return [auc(one[: len(active)], one[len(active) :]) for one in helped]


# ---------------------------------------------------------------------- embedding


def embedding(explanation: Explanation, material: Material, embed: Embed, words: Words, prefix: str = "") -> float:
    """How often the explanation is closer to a passage with the feature than to one without (AUC), by the cosine of
    their embeddings. NaN without a pair of passages.

    embed     from n texts to (n, d), a tensor or an array; `mean_stream` makes one of a language model
    prefix    what stands before the explanation where a model of embeddings wants an instruction, in the source:
              "Instruct: Retrieve sentences that could be related to the interpretation.\\nQuery: "
    """
    text = _text_of(explanation)
    active, silent = _texts(material.active, words), _texts(material.silent, words)
    if not active or not silent:
        return math.nan
    texts = [prefix + text, *active, *silent]
    vectors_TD = torch.as_tensor(embed(texts)).double()
    if vectors_TD.ndim != 2 or len(vectors_TD) != len(texts) or not vectors_TD.isfinite().all():
        raise ValueError(
            f"embed must give one finite vector for each text, ({len(texts)}, d), got {tuple(vectors_TD.shape)}"
            f" with {int((~vectors_TD.isfinite()).sum())} values that are not finite"
        )
    vectors_TD = normalize(vectors_TD, dim=1)
    near = (vectors_TD[1:] @ vectors_TD[0]).tolist()
    return auc(near[: len(active)], near[len(active) :])


def mean_stream(model: Any, reference: Sequence[str], hook_name: str | None = None) -> Embed:
    """An embedding that needs no other model: the residual stream at a middle layer, each token's at length 1 so that
    massive ones do not rule, its mean over the tokens of a text, less the mean of the `reference` texts. These should
    be of both kinds, explanations and passages, or what sets the two apart rules every cosine. Ours.

    Raises ValueError if there is no reference, and for a hook that the model does not have, TypeError for one string.
    """
    if isinstance(reference, str) or not len(reference):
        raise (TypeError if reference else ValueError)(f"reference must be a list of texts, got {reference!r}")
    hook_name = hook_name or f"blocks.{model.cfg.n_layers // 2}.hook_resid_post"
    check_hook_name(model, hook_name)
    centre_D = _streams(model, list(reference), hook_name).mean(0)
    return lambda texts: _streams(model, list(texts), hook_name) - centre_D


def _streams(model: Any, texts: list[str], hook_name: str) -> Float[Tensor, "texts d"]:
    """Each text's mean over its tokens, BOS left out."""
    rows = [ids_of(model, text, begins=True) for text in texts]
    first = len(rows[0]) - len(ids_of(model, texts[0]))  # 1 where the model has a BOS
    for i, row in enumerate(rows):
        check_length(model, len(row), f"texts[{i}]")
        if len(row) == first:
            raise ValueError(f"texts[{i}] is {texts[i]!r}, which has no token; leave it out")
    found: list[Tensor] = [torch.zeros(0)] * len(rows)
    size = rows_per_pass(model.cfg.device, max(map(len, rows)))
    with read_hook(model, hook_name) as read:
        for some in torch.tensor([len(row) for row in rows]).argsort().split(size):
            tokens_BS = pad_sequence([torch.tensor(rows[i]) for i in some], batch_first=True)
            for i, acts_SD in zip(some.tolist(), read(tokens_BS)):
                found[i] = normalize(acts_SD[first : len(rows[i])].float(), dim=1).mean(0).cpu()
    return torch.stack(found)


# ---------------------------------------------------------------------- intervention


def intervention(
    explanation: Explanation,
    feature: int,
    sae: Any,
    model: Any,
    prompts: Int[Tensor, "prompts positions"],
    scorer: Any,
    *,
    largest: float,
    strength: float = 1.0,
    n_tokens: int = 20,
    hook_name: str | None = None,
    seed: int = 0,
) -> float:
    """By how many nats the scorer's surprisal at the explanation falls, when what it has read before was written with
    the feature switched on instead of off: `brought_to_mind` of what `written` gives, whose arguments are explained
    there. A control is the explanation of another feature, with all else the same, seed and strength too."""
    _text_of(explanation)
    how: dict[str, Any] = {"largest": largest, "strength": strength, "n_tokens": n_tokens, "hook_name": hook_name}
    texts = written(feature, sae, model, prompts, **how, seed=seed)
    return brought_to_mind([explanation], *texts, scorer)[0]


def written(
    feature: int,
    sae: Any,
    model: Any,
    prompts: Int[Tensor, "prompts positions"],
    *,
    largest: float,
    strength: float = 1.0,
    n_tokens: int = 20,
    hook_name: str | None = None,
    seed: int = 0,
) -> tuple[list[str], list[str]]:
    """How the model goes on with each prompt, unchanged and with the feature's decoder row added at every position but
    BOS. Both are drawn at temperature 1 with the same random numbers, which `seed` fixes.

    prompts     token ids of the model, BOS first: `model.to_tokens` of one text, or `story_tokens(8 * 256)[:, :17]`,
                beginnings of eight stories. After a bit of other text the embedded model writes random tokens
    largest     the feature's largest activation, as in `Material`: the unit of `strength`
    n_tokens    that are written after each prompt
    hook_name   where the row is added; None: where the SAE was trained to write

    Raises TypeError or ValueError for a feature that the SAE does not have or that is never active, for prompts that
    are no such ids or too long, and where the SAE's rows are not as wide as what they are added to.
    """
    [feature] = check_features([as_whole("feature", feature)], sae.config.d_sae)
    n_tokens, strength = as_whole("n_tokens", n_tokens, 1), float(as_number("strength", strength))
    hook_name = hook_of(sae, hook_name or sae.target_hook_name)
    check_hook_name(model, hook_name)
    prompts = _checked_prompts(prompts, model, n_tokens)
    along_D = _along(sae, feature, float(as_number("largest", largest)), strength).to(model.cfg.device)
    with read_hook(model, hook_name) as read:
        there = read(prompts[:1]).shape[2:]
    if there != along_D.shape:
        raise ValueError(f"the SAE writes {tuple(along_D.shape)}, but {hook_name} is {tuple(there)}; name its own hook")
    add_BD = torch.stack([0 * along_D, along_D]).repeat_interleave(len(prompts), 0)
    generator = torch.Generator().manual_seed(seed)
    tokens = write(model, prompts.repeat(2, 1), hook_name, add_BD, n_tokens, len(prompts), generator)
    decode = model.tokenizer.decode
    texts = [" ".join(decode(ids, skip_special_tokens=True).split()) for ids in tokens[:, prompts.shape[1] :].tolist()]
    return texts[: len(prompts)], texts[len(prompts) :]


def brought_to_mind(
    explanations: Sequence[Explanation], clean: Sequence[str], steered: Sequence[str], scorer: Any
) -> list[float]:
    """Of each explanation the scorer's surprisal at the whole of it after a clean text, less that after the steered
    one, in nats, the mean over pairs; positive where steered texts suggest it. NaN without a pair.

    What it reads: <PASSAGE>, the text, The above passage contains an amplified amount of "<explanation>".
    """
    said = [_text_of(explanation) + '"' for explanation in explanations]
    if len(clean) != len(steered):
        raise ValueError(f"clean has {len(clean)} texts and steered {len(steered)}; they must be pairs")
    if not len(clean):
        return [math.nan] * len(said)
    surprise_TE = np.array(
        [
            [float(losses.sum()) for losses in losses_after(scorer, AMPLIFIED.format(passage), said)]
            for passage in (*clean, *steered)
        ]
    )
    return (surprise_TE[: len(clean)] - surprise_TE[len(clean) :]).mean(0).tolist()


def _along(sae: Any, feature: int, largest: float, strength: float) -> Float[Tensor, " d"]:
    """What is added: the decoder row as it is when the feature is `strength` times as active as it ever was."""
    if not 0 < largest < math.inf:
        raise ValueError(f"largest={largest}: feature {feature} needs a largest activation above 0 as unit of strength")
    if not math.isfinite(strength):
        raise ValueError(f"strength={strength} must be finite")
    scale = sae.out_scale if sae.config.is_transcoder else sae.scale
    return (sae.W_dec[feature] * scale * largest * strength).detach()


def _checked_prompts(prompts: Any, model: Any, n_tokens: int) -> Int[Tensor, "prompts positions"]:
    if not isinstance(prompts, Tensor) or prompts.ndim != 2 or prompts.dtype != torch.int64 or not prompts.numel():
        raise TypeError(
            f"prompts must be a (prompts, positions) tensor of token ids, got {prompts!r:.60}; "
            "model.to_tokens(text) is one, or story_tokens(8 * 256)[:, :17]"
        )
    bos = tokenizer_of(model).bos_token_id
    if bos is not None and (prompts[:, 0] != bos).any():
        raise ValueError(f"prompts must begin with BOS, {bos}, got {prompts[:, 0].tolist()[:5]} in the first column")
    check_length(model, prompts.shape[1] + n_tokens, f"prompts with n_tokens={n_tokens} more")
    return prompts.to(model.cfg.device)


# ---------------------------------------------------------------------- what is read


def _text_of(explanation: Explanation) -> str:
    text = getattr(explanation, "text", None)
    if not isinstance(text, str):
        raise TypeError(f"explanation must be an Explanation, got {explanation!r:.60}; wrap words in Explanation(text)")
    if not text.strip():
        raise ValueError(f"explanation has no words, its text is {text!r}; explain the feature first")
    return text.strip()


def _texts(passages: Sequence[Passage], words: Words) -> list[str]:
    """Passages as text; those of white space alone are left out."""
    return [text for text in (plain(passage, words) for passage in passages) if text]
