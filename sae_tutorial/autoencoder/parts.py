"""A part of an SAE, some of its features, for each of several processes; and the whole again.

sae = SparseAutoencoder(config, part=(rank, world))    # where the whole fits into no memory
part = cut(sae, (rank, world))                         # where it does
sae = joined(part)                                     # all parts of the process group
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from sae_tutorial.activations.ranks import Ranks
from sae_tutorial.autoencoder.sae import SparseAutoencoder, feature_dim


def cut(sae: SparseAutoencoder, part: tuple[int, int]) -> SparseAutoencoder:
    """A copy of some features of an SAE: part (rank, world) of all. What belongs to none of them is in every part."""
    sae.must_be_whole("cut")
    some = SparseAutoencoder(sae.config, part=part).to(sae.W_dec.device, sae.W_dec.dtype)
    some.load_state_dict({name: _of(some, name, tensor) for name, tensor in sae.state_dict().items()})
    for name, parameter in sae.named_parameters():
        some.get_parameter(name).requires_grad_(parameter.requires_grad)
    some.take_origin(sae)
    return some


def _of(some: SparseAutoencoder, name: str, tensor: Tensor) -> Tensor:
    dim = feature_dim(name, tensor)
    return tensor if dim is None else tensor.narrow(dim, some.features.start, len(some.features))


def joined(part: SparseAutoencoder, ranks: Ranks | None = None) -> SparseAutoencoder:
    """The whole SAE, on a CPU, from the parts that all of these ranks have (None: those of the process group). Every
    rank makes the same call, and gets the whole. ValueError if it is not theirs."""
    ranks = Ranks.here() if ranks is None else ranks

    def check() -> None:
        if part.part != ranks.part:
            raise ValueError(f"this is part {part.part} of an SAE, but the process is {ranks.part} (rank, world)")

    ranks.all_do(check)
    whole = SparseAutoencoder(part.config).to(dtype=part.W_dec.dtype)
    whole.load_state_dict(joined_state(part, ranks))
    whole.take_origin(part)
    for name, parameter in part.named_parameters():
        whole.get_parameter(name).requires_grad_(parameter.requires_grad)
    return whole


@torch.no_grad()
def joined_state(part: SparseAutoencoder, ranks: Ranks) -> Mapping[str, Tensor]:
    """The state dict of the whole SAE."""
    state = {}
    for name, tensor in part.state_dict().items():
        dim = feature_dim(name, tensor)
        rows = tensor.T if dim == 1 else tensor
        whole = rows if dim is None else ranks.joined(rows)
        state[name] = (whole.T if dim == 1 else whole).cpu()
    return state
