"""Run a language model up to one hook and stop there, at the speed of plain PyTorch.

A `TransformerBridge` computes whatever its hooks might be asked for: every attention pattern, every LayerNorm scale.
Reading one hook needs none of that. `fused_forward` swaps three steps for PyTorch's fused equivalents while it is
open, wherever nothing in between is asked for at that moment:

    attention    softmax(q kᵀ / √d + causal mask) v      ->  torch.nn.functional.scaled_dot_product_attention
    LayerNorm    centre, measure, divide, step by step   ->  torch.nn.functional.layer_norm
    RMSNorm      measured for the hooks, computed again  ->  torch.nn.functional.rms_norm
    GELU         the tanh formula, seven elementwise ops ->  torch.nn.functional.gelu(approximate="tanh")

Attention with rotary positions (Llama's kind) is handed to the model's own module, told to use that function: its
projections carry the hooks for queries, keys, values and z.

The oracle is the bridge's own forward pass: the results agree up to the rounding of the model's dtype.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from difflib import get_close_matches
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

ReadHook = Callable[[Int[Tensor, "batch context"]], Float[Tensor, "batch context *d"]]
ReadHooks = Callable[[Int[Tensor, "batch context"]], dict[str, Tensor]]
IGNORED = -100  # the next token where none is to be predicted


class _AllRead(Exception):
    """Raised inside the last of the hooks that are read, so that nothing after it is computed."""


@contextmanager
def read_hooks(
    model: Any, hook_names: Iterable[str], *, fused: bool = True, with_gradients: bool = False
) -> Iterator[ReadHooks]:
    """A function from token ids (batch, context) to {name: activations}; the forward pass ends at the last of them.

    Runs in eval mode and without a KV cache, and with the bridge's own arithmetic if `fused` is False. Tokens may lie
    anywhere; they are moved to the model, and the activations stay where it is. Hooks that are on the model act first:
    what they change is what is read.

    Raises ValueError for a hook that the model does not have (with the closest names) and for tokens that are not a
    (batch, context) tensor, RuntimeError for a hook that never fires.
    """
    names = [hook_names] if isinstance(hook_names, str) else list(dict.fromkeys(hook_names))
    for name in names:
        check_hook_name(model, name)
    caught: dict[str, Tensor] = {}

    def catch(activations: Tensor, hook: Any, name: str) -> None:  # `hook.name` may be another name for the same hook
        caught[name] = activations
        if len(caught) == len(names):
            raise _AllRead

    def read(tokens_BS: Tensor) -> dict[str, Tensor]:
        caught.clear()
        if not isinstance(tokens_BS, Tensor) or tokens_BS.ndim != 2:
            raise ValueError(f"tokens must be a (batch, context) tensor of token ids, got {tokens_BS!r:.60}")
        with suppress(_AllRead), model.hooks(fwd_hooks=[(name, partial(catch, name=name)) for name in names]):
            model(tokens_BS.to(model.cfg.device), return_type=None, use_cache=False)
        for name in names:
            if name not in caught:
                raise _never_fired(name)
        return {name: caught.pop(name) for name in names}

    with ExitStack() as stack:
        if model.training:  # walking over all modules costs as much as a short batch
            model.eval()
            stack.callback(model.train)
        if fused:
            stack.enter_context(fused_forward(model))
        stack.enter_context(torch.set_grad_enabled(with_gradients))
        yield read


@contextmanager
def read_gradients(model: Any, hook_name: str, *, fused: bool = True) -> Iterator[Callable[..., tuple[Tensor, Tensor]]]:
    """A function from token ids, and which of them are text, to the activations at one hook and the gradients there:
    those of the next token's cross-entropy, summed over all tokens of the text that are predicted. One pass forward,
    and one back that ends at the hook. Rows do not see each other, so a row's gradients do not depend on the others.
    A third argument, `answers`, is what is to be predicted, place by place, instead of the tokens themselves.

    Raises as `read_hooks` does.
    """
    leaves: list[Tensor] = []

    def cut(activations: Tensor, hook: Any) -> Tensor:
        leaves.append(activations.detach().requires_grad_())
        return leaves[-1]

    def read(
        tokens_BS: Int[Tensor, "batch context"],
        is_text_BS: Bool[Tensor, "batch context"],
        answers: Int[Tensor, "batch context"] | None = None,
    ) -> tuple[Tensor, Tensor]:
        leaves.clear()
        with model.hooks(fwd_hooks=[(hook_name, cut)]):
            logits_BSV = model(tokens_BS.to(model.cfg.device), return_type="logits", use_cache=False)
        if not leaves:
            raise _never_fired(hook_name)
        answers_BS = tokens_BS if answers is None else answers
        next_BS = torch.where(is_text_BS, answers_BS, IGNORED)[:, 1:].to(logits_BSV.device)
        logits_NV = logits_BSV[:, :-1].flatten(0, 1).float()
        loss = F.cross_entropy(logits_NV, next_BS.flatten(), ignore_index=IGNORED, reduction="sum")
        leaf = leaves.pop()
        [gradients] = torch.autograd.grad(loss, [leaf], materialize_grads=True)
        return leaf.detach(), gradients

    with read_hooks(model, (), fused=fused, with_gradients=True):
        check_hook_name(model, hook_name)
        yield read


@contextmanager
def read_hook(model: Any, hook_name: str, *, fused: bool = True) -> Iterator[ReadHook]:
    """`read_hooks` for one hook: a function from token ids (batch, context) to its activations."""
    with read_hooks(model, [hook_name], fused=fused) as read:
        yield lambda tokens_BS: read(tokens_BS)[hook_name]


def _never_fired(hook_name: str) -> RuntimeError:
    return RuntimeError(
        f"hook_name={hook_name!r} exists but did not fire during a forward pass. "
        "Optional hooks must be switched on first, for example model.set_use_attn_result(True)."
    )


def check_hook_name(model: Any, hook_name: str) -> None:
    """Raise ValueError with the closest names if `model` has no hook of that name, TypeError if it is no model."""
    if not hasattr(model, "hook_dict"):
        raise TypeError(f"model must be what load_language_model returns, got {type(model).__name__}")
    names = list(model.hook_dict)
    if not isinstance(hook_name, str) or hook_name not in names:
        close = get_close_matches(str(hook_name), names, n=4, cutoff=0.5)
        hint = f"Did you mean {' or '.join(map(repr, close))}?" if close else "See list(model.hook_dict)."
        raise ValueError(f"hook_name={hook_name!r} is not a hook of this model. {hint}")


@contextmanager
def fused_forward(model: Any) -> Iterator[None]:
    """While open, `model` computes attention, LayerNorm, RMSNorm and GELU with PyTorch's fused functions.

    Modules of a kind that is not known here keep their own arithmetic. So does, in each forward pass, a module whose
    attention scores, pattern, scale or normalised input carry hooks at that moment: hooks see what they always see.
    """
    with ExitStack() as stack:

        def patch(module: Any, name: str, fused: Callable, is_plain: Callable[[Any], bool]) -> None:
            own = getattr(module, name)

            def run(*args: Any, **kwargs: Any) -> Any:
                return fused(module, *args, **kwargs) if is_plain(module) else own(*args, **kwargs)

            if name not in vars(module):  # otherwise an enclosing fused_forward has done it
                object.__setattr__(module, name, run)  # shadows the method of the class, for this module only
                stack.callback(object.__delattr__, module, name)

        config: Any = model.original_model.config
        stack.callback(setattr, config, "_attn_implementation", config._attn_implementation)
        for module in model.modules():
            kind = type(module).__name__
            if kind == "JointQKVAttentionBridge" and _is_causal(module):
                patch(module, "_reconstruct_attention", _fused_attention, _attention_is_plain)
                config._attn_implementation = "sdpa"  # otherwise a (context, context) mask is built in every call
            elif kind == "PositionEmbeddingsAttentionBridge" and _is_causal(module) and _is_softmax(module):
                patch(module, "forward", _rotary_attention, _rotary_is_plain)
                config._attn_implementation = "sdpa"
            elif kind == "RMSNormalizationBridge" and not module.uses_weight_offset:
                patch(module, "_hf_autograd_forward_with_hooks", _fused_rms_norm, _norm_is_plain)
            elif kind == "NormalizationBridge" and isinstance(module.original_component, nn.LayerNorm):
                patch(module, "_python_norm_forward", _fused_layer_norm, _norm_is_plain)
            elif kind == "NewGELUActivation":
                patch(module, "forward", lambda _, x: F.gelu(x, approximate="tanh"), lambda _: True)
        yield


def _is_causal(attention: Any) -> bool:
    return getattr(attention, "is_causal", True) and not getattr(attention, "_reorder_and_upcast_attn", False)


def _is_softmax(attention: Any) -> bool:
    """Whether scores go into a softmax as they are: neither capped (Gemma 2) nor beside a sink (GPT-OSS)."""
    module = attention.original_component
    return getattr(module, "attn_logit_softcapping", None) is None and getattr(module, "sinks", None) is None


def _attention_is_plain(attention: Any) -> bool:
    """Whether nothing but the summed output of the heads is wanted from this attention layer."""
    hooked = attention.hook_attn_scores.has_hooks() or attention.hook_pattern.has_hooks()
    return not (hooked or getattr(attention.config, "use_attn_result", False))


def _rotary_is_plain(attention: Any) -> bool:
    """Whether the model's own module computes all that is wanted: nothing between its projections is read."""
    inside = ("hook_attn_scores", "hook_pattern", "hook_rot_q", "hook_rot_k", "hook_cos", "hook_sin")
    switches = ("use_attn_result", "use_attn_in", "use_split_qkv_input")
    return not any(getattr(attention, name).has_hooks() for name in inside) and not any(
        getattr(attention.config, name, False) for name in switches
    )


def _norm_is_plain(norm: Any) -> bool:
    """Whether this is a LayerNorm as torch has it, whose inner steps are not read."""
    return not (norm.hook_scale.has_hooks() or norm.hook_normalized.has_hooks() or norm.uses_weight_offset)


def _fused_attention(self: Any, q: Tensor, k: Tensor, v: Tensor, **kwargs: Any) -> tuple[Tensor, None]:
    """softmax(q kᵀ · scale + mask) v, then the output projection; stands in for the bridge's step-by-step version."""
    n_heads = self.config.n_heads
    n_kv_heads = getattr(self.config, "n_key_value_heads", None) or n_heads
    q_BHSd, k_BHSd, v_BHSd, batch, context, d_head = self._reshape_qkv_to_heads(q, k, v, n_heads, n_kv_heads)
    k_BHSd, v_BHSd = self._update_kv_cache(k_BHSd, v_BHSd, **kwargs)
    scale = d_head**-0.5
    if getattr(self.config, "scale_attn_by_inverse_layer_idx", False) and self._layer_idx is not None:
        scale /= self._layer_idx + 1
    mask = kwargs.get("attention_mask")  # None: nothing but the causal mask
    z_BHSd = F.scaled_dot_product_attention(
        q_BHSd,
        k_BHSd,
        v_BHSd,
        attn_mask=mask,
        is_causal=mask is None and context > 1,
        scale=scale,
        enable_gqa=n_kv_heads != n_heads,
    )
    z_BSD = self._reshape_attn_output(z_BHSd, batch, context, n_heads, d_head)
    return self._apply_output_projection(z_BSD), None  # fires hook_z; None: there is no pattern


def _rotary_attention(self: Any, hidden_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, None]:
    out, _ = self.original_component(self.hook_in(hidden_states), *args, **kwargs)
    return self.hook_out(out), None


def _fused_rms_norm(self: Any, x: Tensor) -> Tensor:
    norm = self.original_component
    return F.rms_norm(x, x.shape[-1:], norm.weight, eps=norm.variance_epsilon)


def _fused_layer_norm(self: Any, x: Tensor) -> Tensor:
    bias = getattr(self.original_component, "bias", None)
    return F.layer_norm(x, x.shape[-1:], self.weight, bias, eps=getattr(self.config, "eps", 1e-5))
