"""Affinities (tokens × features) in, sparse codes (the matches) out: which token gets to use which feature.

kernels    Triton versions of the slow steps, for CUDA
checks     what is accepted, and the errors otherwise
products   products with few matches, and their gradients, without a dense table
codes      `SparseCodes`: the matches, and what is multiplied with them
rules      the definition of the choices in plain torch, by sorting
zipf       how many tokens each feature may have, and laws fitted to densities
fast       the same choices with fewer passes over the table
blockwise  the same from one block of features after the other, where the table does not fit into memory
"""

from sae_tutorial.allocation.codes import (
    SparseCodes,
    decode,
    encode_matches,
    sensitivity_at,
    stack_features,
    stack_tokens,
)
from sae_tutorial.allocation.fast import feature_choice, gradient_choice, mutual_choice, threshold_choice, token_choice
from sae_tutorial.allocation.rules import scores
from sae_tutorial.allocation.zipf import ZipfFit, fit_zipf, zipf_capacity

__all__ = [
    "SparseCodes",
    "ZipfFit",
    "decode",
    "encode_matches",
    "feature_choice",
    "fit_zipf",
    "gradient_choice",
    "mutual_choice",
    "scores",
    "sensitivity_at",
    "stack_features",
    "stack_tokens",
    "threshold_choice",
    "token_choice",
    "zipf_capacity",
]
