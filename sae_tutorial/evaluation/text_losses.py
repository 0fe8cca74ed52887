"""How likely a language model finds a text when it has read something else."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

from sae_tutorial.activations.forward import fused_forward
from sae_tutorial.activations.memory import at_once


@torch.no_grad()
def losses_after(model: Any, before: str, texts: Sequence[str]) -> list[Float[Tensor, " tokens"]]:
    """Of each text the loss of each of its tokens, in nats, when the model has read its BOS and what stands `before`.

    That is read once, and its keys and values serve all texts. Both are tokenized on their own, so that a text has the
    same tokens whatever stands before it. Texts are padded on the right: a causal model does not see what comes later,
    and only their own tokens are looked at. Raises ValueError for more tokens than the model reads, or none before.
    """
    from transformers import DynamicCache

    head, tails = ids_of(model, before, begins=True), [ids_of(model, text) for text in texts]
    if not head:
        raise ValueError(f"before is {before!r}, so nothing predicts the first token of a text; put a word there")
    for i, tail in enumerate(tails):
        check_length(model, len(head) + len(tail), f"texts[{i}] with what stands before it")
    found, read, device = [torch.zeros(0)] * len(tails), DynamicCache(), model.cfg.device
    with fused_forward(model):
        how = {"return_type": "logits", "use_cache": True}
        last_1V = model(torch.tensor([head]).to(device), past_key_values=read, **how)[0, -1:]
        for some in _batches([len(tail) for tail in tails], model):
            tokens_BS = pad_sequence([torch.tensor(tails[i]) for i in some], batch_first=True)
            cache = copy.deepcopy(read)
            cache.batch_repeat_interleave(len(some))
            for i, logits_SV in zip(some, model(tokens_BS.to(device), past_key_values=cache, **how)):
                tail_S = torch.tensor(tails[i]).to(device)
                said_SV = torch.cat([last_1V, logits_SV[: len(tail_S) - 1]]).float()
                found[i] = cross_entropy(said_SV, tail_S, reduction="none").cpu()
    return found


def ids_of(model: Any, text: str, begins: bool = False) -> list[int]:
    """Of a text, after BOS where it begins a row and the model has one."""
    tokenizer = tokenizer_of(model)
    bos = tokenizer.bos_token_id if begins else None
    return [*([] if bos is None else [bos]), *tokenizer.encode(text, add_special_tokens=False)]


def tokenizer_of(model: Any) -> Any:
    if getattr(model, "tokenizer", None) is None:
        raise ValueError(
            "model has no tokenizer, so it reads no text; load_language_model(…, tokenizer=…) gives it one"
        )
    return model.tokenizer


def check_length(model: Any, length: int, what: str) -> None:
    if length > model.cfg.n_ctx:
        raise ValueError(f"{what}: {length} tokens, and this model reads {model.cfg.n_ctx} at most; shorten it")


def _batches(lengths: Sequence[int], model: Any) -> Iterator[list[int]]:
    """Places of texts that have a token, those of about the same length together, as many as their logits allow."""
    order = sorted((i for i, length in enumerate(lengths) if length), key=lambda i: lengths[i])
    size = at_once(model.cfg.device, 4 * max(lengths, default=1) * model.cfg.d_vocab)
    for first in range(0, len(order), size):
        yield order[first : first + size]
