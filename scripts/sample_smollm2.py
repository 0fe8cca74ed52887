"""Let SmolLM2 go on with real books: half of the text that the course ships for it.

    python scripts/sample_smollm2.py [--out FILE] [--tokens 510000]

Unprompted, a model of this kind writes chats, code and lists. So each row is begun by 64 tokens of a public-domain book
(the rows that `ship_books.py` wrote for it, in turn), which are not shipped; what follows is sampled from the model at
temperature 1, and is. Its special tokens (chat marks, ends of text) are never drawn. All rows are kept, none is
looked at.

Batch `i` depends on (seed, i) alone and is saved when it is done, so a run that was stopped goes on where it was. In
bfloat16, by default; on two CPU cores that have instructions for it some half an hour, a few minutes on a GPU.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Int
from sample_stories import draw, fingerprint, sample_in_parts
from torch import Tensor
from tqdm import tqdm
from transformers import AutoTokenizer, LlamaForCausalLM

from sae_tutorial.activations.files import check_writable
from sae_tutorial.activations.shipped_text import TEXTS, shipped_rows
from sae_tutorial.activations.smollm2 import smollm2_folder

LENGTH, PROMPT = 255, 64  # tokens that are kept of a row, and that come before them


class Writer:
    """A Llama, one token per row at a time, with keys and values of all tokens so far kept in place."""

    def __init__(self, model: Any, batch: int, length: int) -> None:
        config = model.config
        self.model, self.d_head = model, config.hidden_size // config.num_attention_heads
        self.n_shared = config.num_key_value_heads
        shape = (config.num_hidden_layers, batch, self.n_shared, length, self.d_head)
        self.keys, self.values = (model.lm_head.weight.new_zeros(shape) for _ in "kv")
        cos, sin = model.model.rotary_emb(model.lm_head.weight, torch.arange(length, device=model.device)[None])
        self.cos_SD, self.sin_SD = cos[0], sin[0]

    def logits(self, tokens_B: Tensor, position: int) -> Tensor:
        """Next-token logits (batch, vocabulary) for the tokens at `position`, after those before it were passed."""
        x_BD = self.model.model.embed_tokens(tokens_B)
        for layer, block in enumerate(self.model.model.layers):
            x_BD = x_BD + self.attention(block.self_attn, block.input_layernorm(x_BD), layer, position)
            x_BD = x_BD + block.mlp(block.post_attention_layernorm(x_BD))
        return self.model.lm_head(self.model.model.norm(x_BD))

    def attention(self, attn: Any, x_BD: Tensor, layer: int, position: int) -> Tensor:
        heads = (len(x_BD), self.n_shared, -1, self.d_head)  # of queries, those together that share keys and values
        q, k, v = (project(x_BD).view(heads) for project in (attn.q_proj, attn.k_proj, attn.v_proj))
        q, k = self.rotated(q, position), self.rotated(k, position)
        self.keys[layer, :, :, position] = k[:, :, 0]
        self.values[layer, :, :, position] = v[:, :, 0]
        seen = slice(0, position + 1)
        z = F.scaled_dot_product_attention(q, self.keys[layer, :, :, seen], self.values[layer, :, :, seen])
        return attn.o_proj(z.reshape(len(x_BD), -1))

    def rotated(self, x: Tensor, position: int) -> Tensor:
        left, right = x.chunk(2, dim=-1)
        return x * self.cos_SD[position] + torch.cat([-right, left], dim=-1) * self.sin_SD[position]


@torch.inference_mode()
def sample_rows(
    writer: Writer, prompts_BP: Int[Tensor, "batch prompt"], banned: Tensor, seed: int, index: int, bar: tqdm
) -> Int[np.ndarray, "batch tokens"]:
    """What the model writes after each prompt, in batch `index`."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + index)
    columns = list(prompts_BP.unbind(1))
    for position in range(writer.keys.shape[3]):
        logits_BV = writer.logits(columns[position], position)
        if position >= prompts_BP.shape[1] - 1:
            logits_BV = logits_BV.float()
            logits_BV[:, banned] = -torch.inf
            columns.append(draw(logits_BV, generator))
            bar.update(len(prompts_BP))
    return torch.stack(columns[prompts_BP.shape[1] :], dim=1).cpu().numpy().astype(np.uint16)


def prompts(bos: int, n: int, seed: int) -> Int[Tensor, "n prompt"]:
    """The beginning-of-text token, and 64 tokens from the middle of shipped rows of books."""
    books_NS = shipped_rows("smollm2", "books")
    rows = np.random.default_rng(seed).permutation(len(books_NS))
    pieces = books_NS[np.resize(rows, n), 96 : 96 + PROMPT - 1].astype(np.int64)
    return torch.from_numpy(np.concatenate([np.full((n, 1), bos), pieces], axis=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=TEXTS / "smollm2" / "model.npy.xz")
    parser.add_argument("--tokens", type=int, default=510_000, help="at least this many")
    parser.add_argument("--batch", type=int, default=128, help="rows written at once")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    check_writable(args.out)

    folder = smollm2_folder()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = LlamaForCausalLM.from_pretrained(folder, dtype=getattr(torch, args.dtype)).eval().to(args.device)
    banned = torch.tensor(sorted(tokenizer.all_special_ids), device=args.device)
    per_batch = args.batch * LENGTH
    n_batches = math.ceil(args.tokens / per_batch)
    prompts_NP = prompts(tokenizer.bos_token_id, n_batches * args.batch, args.seed).to(args.device)

    def sample(index: int, bar: tqdm) -> np.ndarray:
        prompts_BP = prompts_NP[index * args.batch :][: args.batch]
        return sample_rows(Writer(model, args.batch, PROMPT + LENGTH - 1), prompts_BP, banned, args.seed, index, bar)

    run = f"{fingerprint(model)} batch={args.batch} seed={args.seed} {args.dtype}\n"
    rows = sample_in_parts(args.out, n_batches, per_batch, run, sample)
    print(f"{len(rows):,} rows kept, 0 left out; {rows.size:,} tokens, {args.out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
