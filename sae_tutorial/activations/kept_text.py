"""Which tokens of a text count: everything but the beginning-of-text token and padding, row by row."""

import hashlib
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from jaxtyping import Int
from torch import Tensor


@dataclass(frozen=True)
class KeptText:
    """Tokens, and which columns of each row are kept: `start` up to `stop`, one run per row."""

    tokens: Int[Tensor, "n context"]
    bos_id: int | Literal["any"] | None
    pad_id: int | None
    start: Int[Tensor, " n"]
    stop: Int[Tensor, " n"]
    first: Int[Tensor, " n+1"]  # the position in the store of the first kept token of each row

    @staticmethod
    def of(tokens: Int[Tensor, "n context"], bos_id: int | Literal["any"] | None, pad_id: int | None) -> "KeptText":
        n, context = tokens.shape
        start, stop = torch.zeros(n, dtype=torch.int64), torch.full((n,), context)
        if pad_id is not None:
            is_text = tokens != pad_id
            stop = context - is_text.flip(1).long().argmax(1)
            stop[~is_text.any(1)] = 0
            left_padded = (is_text.long().argmax(1) >= 2) & is_text.any(1)
            if left_padded.any():
                raise ValueError(
                    f"tokens: row {int(left_padded.nonzero()[0])} begins with a run of pad_id={pad_id}, which looks "
                    "like padding on the left. Pad on the right, or pass pad_id=None if these are no padding."
                )
        if bos_id is not None:
            start += 1 if bos_id == "any" else (tokens[:, 0] == bos_id).long()
        first = torch.cat([torch.zeros(1, dtype=torch.int64), (stop - start).clamp_min(0).cumsum(0)])
        if first[-1] == 0:
            raise ValueError(f"tokens: nothing is left after dropping bos_id={bos_id} and pad_id={pad_id}.")
        return KeptText(tokens, bos_id, pad_id, start, stop, first)

    def __len__(self) -> int:
        return int(self.first[-1])

    @property
    def context(self) -> int:
        return self.tokens.shape[1]

    def mask(self, a: int, b: int) -> Tensor:
        """(b - a, context) bool: the kept tokens of rows a to b."""
        column = torch.arange(self.context)
        return (column >= self.start[a:b, None]) & (column < self.stop[a:b, None])

    def locate(self, positions: Int[Tensor, " n"]) -> tuple[Tensor, Tensor]:
        row = torch.searchsorted(self.first, positions, right=True) - 1
        return row, self.start[row] + positions - self.first[row]

    def hash(self) -> str:
        return hashlib.sha256(repr(tuple(self.tokens.shape)).encode() + self.tokens.numpy().tobytes()).hexdigest()


def _brief(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {str(tensor.dtype)[6:]}"


def checked_tokens(tokens: Tensor, model: Any) -> Tensor:
    if not isinstance(tokens, Tensor) or tokens.ndim != 2 or tokens.numel() == 0:
        got = _brief(tokens) if isinstance(tokens, Tensor) else type(tokens).__name__
        raise ValueError(f"tokens must be a (n, context) tensor of token ids, got {got}. One text: tokens[None].")
    if tokens.dtype != torch.int64:
        raise ValueError(f"tokens must be int64 token ids, got {_brief(tokens)}. Convert them with tokens.long().")
    low, high, size = int(tokens.min()), int(tokens.max()), model.cfg.d_vocab
    if low < 0 or high >= size:
        raise ValueError(
            f"tokens holds ids {low}..{high}, but this model knows 0..{size - 1}. Tokenise with model.tokenizer."
        )
    if tokens.shape[1] > model.cfg.n_ctx:
        raise ValueError(
            f"tokens has a context of {tokens.shape[1]}, but this model sees {model.cfg.n_ctx} tokens at most. "
            f"Cut the rows: tokens[:, :{model.cfg.n_ctx}]."
        )
    return tokens.detach().cpu().contiguous()


def special_ids(
    model: Any, bos_id: int | Literal["auto", "any"] | None, pad_id: int | Literal["auto"] | None
) -> tuple[int | Literal["any"] | None, int | None]:
    """The ids themselves where "auto" asks the model's tokenizer.

    A tokenizer that has no padding of its own often names its end mark instead. That mark is text: a story may end at
    any place. So "auto" takes only an id that stands for nothing but padding.
    """
    tokenizer = getattr(model, "tokenizer", None)
    if bos_id == "auto":
        bos_id = cast(int | None, getattr(tokenizer, "bos_token_id", None))
    if pad_id == "auto":
        pad_id = cast(int | None, getattr(tokenizer, "pad_token_id", None))
        if pad_id in (getattr(tokenizer, "bos_token_id", None), getattr(tokenizer, "eos_token_id", None)):
            pad_id = None
    return bos_id, pad_id
