"""Synthetic activations in superposition (sparse sums of known directions, so that recovery can be judged), and SAEs
with random weights."""

import torch

from sae_tutorial import ActivationStore, SAEConfig, SparseAutoencoder
from sae_tutorial.autoencoder.config import BUDGET_RULES


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def gradients(sae, loss):
    sae.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in sae.named_parameters() if p.grad is not None}


def superposed(n_tokens=8000, d_in=16, n_features=32, mean_active=3.0, seed=0):
    """(activations (n, d_in), directions (n_features, d_in)); feature frequencies fall like 1 / (rank + 3)."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.nn.functional.normalize(torch.randn(n_features, d_in, generator=generator), dim=1)
    offset = torch.randn(d_in, generator=generator)
    frequency = 1 / (torch.arange(1, n_features + 1) + 3)
    frequency = (frequency / frequency.sum() * mean_active).clamp(max=0.5)
    on = torch.rand(n_tokens, n_features, generator=generator) < frequency
    strengths = on * (1 + torch.rand(n_tokens, n_features, generator=generator))
    return 3 * strengths @ directions + offset, directions


def store_and_held_out(**sizes):
    """A store with three quarters of the tokens, the remaining tokens, and the directions. The store's gradients point
    to the mean, as if the loss rose with the squared distance from it."""
    x, directions = superposed(**sizes)
    cut = len(x) * 3 // 4
    return ActivationStore.from_tensor(x[:cut], gradients=x[:cut] - x.mean(0)), x[cut:], directions


def recovered(sae, directions):
    """For each true direction, the cosine with the decoder row that is closest to it."""
    rows = torch.nn.functional.normalize(sae.W_dec.detach(), dim=1)
    return (rows @ directions.T).amax(0)


def make(rule, d_in=8, d_sae=64, **more):
    """An SAE with every weight, bias and unit away from its default."""
    k = 4 if rule in BUDGET_RULES else None
    sae = SparseAutoencoder(SAEConfig(d_in, d_sae, rule, k, **more))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in sae.named_parameters():
            if name not in ("W_enc", "W_dec", "threshold") and parameter.requires_grad:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
        sae.mean.copy_(torch.randn(d_in, generator=generator))
        sae.scale.fill_(2.0)
        if sae.config.is_transcoder:
            sae.out_mean.copy_(torch.randn(5, generator=generator))
            sae.out_scale.fill_(3.0)
        if sae.config.gradient_weight:
            sae.gradient_scale.fill_(0.5)
        if rule not in ("relu", "gated", "token_choice"):
            sae.threshold.copy_(0.3 + 0.1 * torch.rand(sae.threshold.shape, generator=generator))
    return sae
