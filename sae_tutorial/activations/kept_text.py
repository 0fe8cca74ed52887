"""Which tokens of a text count: everything but the beginning-of-text token and padding, row by row."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from sae_tutorial.activations.arguments import as_whole


@dataclass(frozen=True)
class KeptText:
    """Tokens, and which columns of each row are kept: `start` up to `stop`, one run per row."""

    tokens: Int[Tensor, "n context"]  # padding, if any, at the end of a row
    start: Int[Tensor, " n"]
    stop: Int[Tensor, " n"]

    @staticmethod
    def of(
        tokens: Int[Tensor, "n context"],
        bos_id: int | Literal["any"] | None,
        pad_id: int | None,
        in_text: bool = False,
        begins: bool = False,
    ) -> "KeptText":
        """The text without BOS and padding, from what `checked_tokens` and `special_ids` return.

        A run of `pad_id` at the end of a row is padding. So is one at its beginning; such a row is moved to the left,
        since a model with absolute positions must see it there, and padded on the right.

        in_text   the id is a mark of texts too: a single one at the end is text, since a text may end anywhere, and so
                  is a shortest run at the beginning, unless some row of `tokens` begins with a longer one
        begins    it is the beginning-of-text token too: the last of a run at the beginning is no padding
        """
        n, context = tokens.shape
        start, stop = torch.zeros(n, dtype=torch.int64), torch.full((n,), context)
        if pad_id is not None:
            is_text = tokens != pad_id
            left = is_text.long().argmax(1)  # 0 where nothing is text
            right = torch.where(is_text.any(1), is_text.flip(1).long().argmax(1), context)
            before_bos = (left > 0) & (tokens.gather(1, left[:, None])[:, 0] == (bos_id if bos_id != "any" else None))
            if not in_text or (left > begins + 1).any() or before_bos.any():
                left = (left - int(begins)).clamp_min(0)
                if left.any():
                    tokens = tokens.gather(1, (torch.arange(context) + left[:, None]) % context)
                    stop = stop - left
            stop = stop - torch.where(right > in_text, right, 0)
        if bos_id is not None:
            start += 1 if bos_id == "any" else (tokens[:, 0] == bos_id).long()
        text = KeptText(tokens, start, stop)
        if len(text) == 0:
            raise ValueError(f"tokens: nothing is left after dropping bos_id={bos_id} and pad_id={pad_id}.")
        return text

    @cached_property
    def first(self) -> Int[Tensor, " n+1"]:
        """How many tokens are kept in the rows before each row, and in all of them."""
        return torch.cat([torch.zeros(1, dtype=torch.int64), (self.stop - self.start).clamp_min(0).cumsum(0)])

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
        """(row, column) of kept tokens, counted through all rows."""
        row = torch.searchsorted(self.first, positions, right=True) - 1
        return row, self.start[row] + positions - self.first[row]

    def position(self, rows: Int[Tensor, " n"], columns: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
        """The inverse of `locate`."""
        return self.first[rows] + columns - self.start[rows]

    def hash(self, *more: Tensor) -> str:
        """SHA-256 of the tokens and of which are kept."""
        digest = hashlib.sha256(repr(tuple(self.tokens.shape)).encode())
        for part in (self.tokens, self.start, self.stop, *more):
            digest.update(part.numpy().tobytes())
        return digest.hexdigest()


def checked_tokens(tokens: Tensor, model: Any) -> Tensor:
    got = f"{tuple(tokens.shape)} {tokens.dtype}" if isinstance(tokens, Tensor) else type(tokens).__name__
    if not isinstance(tokens, Tensor) or tokens.ndim != 2 or tokens.numel() == 0:
        raise ValueError(f"tokens must be a (n, context) tensor of token ids, got {got}. One text: tokens[None].")
    if tokens.dtype != torch.int64:
        raise ValueError(f"tokens must be int64 token ids, got {got}. Convert them with tokens.long().")
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
    return tokens.detach().to("cpu", copy=True).contiguous()  # the caller may change theirs


def special_ids(
    model: Any, bos_id: int | Literal["auto", "any"] | None, pad_id: int | Literal["auto"] | None
) -> tuple[int | Literal["any"] | None, int | None, bool, bool]:
    """(bos_id, pad_id, in_text, begins) as `KeptText.of` takes them, where "auto" asks the model's tokenizer.

    A tokenizer that has no padding of its own names its end mark instead, or nothing; padding is done with that mark.
    """
    tokenizer = getattr(model, "tokenizer", None)
    bos, eos, pad, unk = (getattr(tokenizer, f"{kind}_token_id", None) for kind in ("bos", "eos", "pad", "unk"))
    in_text = pad_id == "auto" and (pad is None or pad in (bos, eos, unk))
    if pad_id == "auto":
        pad_id = eos if pad is None else pad
    if bos_id == "auto":
        bos_id = bos
    bos_id = bos_id if bos_id in (None, "any") else as_whole("bos_id", bos_id)
    pad_id = pad_id if pad_id is None else as_whole("pad_id", pad_id)
    return bos_id, pad_id, in_text, pad_id is not None and pad_id in (bos, bos_id)
