"""Patching with features: change some coordinates of an activation to what they are in another prompt.

    x' = x + Σ_{j∈J} (z*_j − z_j) f_j          at every token; J the features that are patched

z are the codes of x in some dictionary, z* those of the other prompt, f_j the dictionary's directions. What the
dictionary does not explain stays as it is. Everything after the hook is then run again, and the question is how far
the model's answer has come towards the other prompt's: KL(target ‖ patched) at END.

    Edit          all that a dictionary could change in a batch of prompts
    loss_towards  the function of x' that is made small; `feature_order` asks which features do most of that

Source: Cunningham et al. 2023, and the code that came with it (HoagyC/sparse_coding, ioi_feature_ident.py).

Letters of shapes: B prompts, P positions, D dimensions of the residual stream, F features, V vocabulary, N tokens.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sae_tutorial.activations.forward import check_hook_name, fused_forward, read_hooks
from sae_tutorial.autoencoder.dictionaries import Dictionary
from sae_tutorial.circuits.patching import check_shape
from sae_tutorial.circuits.prompts import LOGITS, Hook, Prompts, at, end_logits, only_end

Loss = Callable[[Float[Tensor, "prompts positions d"]], Float[Tensor, " prompts"]]
Chosen = Bool[Tensor, "#prompts features"]  # one row for all prompts, or one for each


@dataclass(frozen=True)
class Edit:
    """All that a dictionary could change in some prompts, to make them like others.

    Attributes:
        x: (B, P, D) the activations as they are.
        changes: (B, P, F) how each code would change, z* − z; 0 wherever the two prompts have been the same so far.
        directions: (F, D).
        length: (B,) how many tokens each prompt has, without the one that begins it.
    """

    x: Float[Tensor, "prompts positions d"]
    changes: Float[Tensor, "prompts positions features"]
    directions: Float[Tensor, "features d"]
    length: Int[Tensor, " prompts"]

    @classmethod
    def towards(
        cls,
        dictionary: Dictionary,
        x: Float[Tensor, "prompts positions d"],
        target: Float[Tensor, "prompts positions d"],
        prompts: Prompts,
    ) -> Edit:
        """From `x` to `target`: activations of prompts that agree position by position. ValueError if shapes differ."""
        check_shape("target", target, x.shape)
        codes, wanted = (dictionary.encode(acts.flatten(0, 1)).unflatten(0, acts.shape[:2]) for acts in (x, target))
        seen = torch.arange(x.shape[1], device=x.device) <= prompts.positions["END"][:, None]  # no padding
        return cls(x, (wanted - codes) * seen[..., None], dictionary.directions, prompts.positions["END"])

    def __getitem__(self, rows: slice) -> Edit:
        """The same for some of the prompts."""
        return replace(self, x=self.x[rows], changes=self.changes[rows], length=self.length[rows])

    @property
    def used(self) -> Chosen:
        """(B, F) the features that change at all in each prompt."""
        return (self.changes != 0).any(1)

    def added(self, chosen: Chosen) -> Float[Tensor, "prompts positions d"]:
        """Σ_{j∈J} (z*_j − z_j) f_j, for the features that are chosen."""
        some = chosen.any(0)  # in any prompt: the others cost nothing
        return (self.changes[..., some] * chosen[:, None, some]) @ self.directions[some]

    def patched(self, chosen: Chosen) -> Float[Tensor, "prompts positions d"]:
        """x'."""
        return self.x + self.added(chosen)

    def magnitude(self, chosen: Chosen) -> Float[Tensor, " prompts"]:
        """|x' − x|, averaged over the tokens of each prompt."""
        return self.size_of(self.added(chosen))

    def size_of(self, added: Float[Tensor, "prompts positions d"]) -> Float[Tensor, " prompts"]:
        """The `magnitude` of what is added."""
        return added.norm(dim=-1).sum(1) / self.length.clamp(min=1)


def run_from(model: Any, prompts: Prompts, hook_name: str) -> Callable[[Tensor], Float[Tensor, "prompts vocab"]]:
    """A function from the residual stream at `hook_name`, (B, P, D), to the logits at END: only what follows is run.

    Gradients flow through it. Equals running the whole model with the activations at the hook replaced, by the last
    hook there. Raises ValueError for a hook that is not the residual stream after a block.
    """
    check_hook_name(model, hook_name)
    found = re.fullmatch(r"blocks\.(\d+)\.hook_resid_post", hook_name)
    if found is None:
        raise ValueError(f"hook_name={hook_name!r}: features are patched in blocks.N.hook_resid_post, after a block.")
    later = list(model.blocks)[int(found[1]) + 1 :]
    last = f"blocks.{len(model.blocks) - 1}."
    before_mlp = f"{last}ln2.hook_in"
    behind = [point for name, point in model.hook_dict.items() if name.startswith((f"{last}ln2", f"{last}mlp"))]
    behind += [point for name, point in model.hook_dict.items() if name.startswith((f"{last}hook_", "ln_final"))]

    def mlp_at_end() -> list[Hook]:
        # The last MLP works on each position alone, and only END is read: a third of the work of two blocks is saved.
        # What it adds is added to all positions, of which END alone is right. Hooks in between see what they always do.
        kind = type(model.blocks[len(model.blocks) - 1].original_component).__name__
        if kind != "GPT2Block" or not later or any(point.has_hooks() for point in behind):
            return []  # other blocks may have their MLP elsewhere
        return [(before_mlp, lambda x_BPD, hook: at(x_BPD, prompts.positions["END"])[:, None])]

    def run(x_BPD: Tensor) -> Tensor:
        with only_end(model, prompts, mlp_at_end()) as end, fused_forward(model):
            for block in later:
                out = block(x_BPD)
                x_BPD = out[0] if isinstance(out, tuple) else out
            return end(model.unembed(model.ln_final(x_BPD)))

    def run_all(x_BPD: Tensor) -> Tensor:
        hooks, gradients = [(hook_name, lambda acts, hook: x_BPD)], torch.is_grad_enabled()
        with only_end(model, prompts, hooks) as end, read_hooks(model, [LOGITS], with_gradients=gradients) as read:
            return end(read(prompts.tokens)[LOGITS])

    return run if model.cfg.positional_embedding_type == "standard" else run_all  # other blocks take positions, too


def divergence(
    logits: Float[Tensor, "prompts vocab"], target: Float[Tensor, "prompts vocab"]
) -> Float[Tensor, " prompts"]:
    """KL(target ‖ patched) in nats: 0 where the patched model predicts what it would predict after the other prompt.

    Raises ValueError for a target of another number of prompts.
    """
    check_shape("target", target, logits.shape)
    log_p, log_q = target.log_softmax(-1), logits.log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def loss_towards(model: Any, prompts: Prompts, other: Prompts, hook_name: str) -> Loss:
    """The function that everything here makes small: patched residual stream -> KL to the answer to `other`."""
    run, target = run_from(model, prompts, hook_name), end_logits(model, other)
    return lambda x_BPD: divergence(run(x_BPD), target)
