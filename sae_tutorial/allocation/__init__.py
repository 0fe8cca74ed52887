"""Sparse allocation: affinities (tokens × features) in, SparseCodes (the matches) out.

`rules` defines the four choices in plain torch, `fast` computes the same with fewer passes, `blockwise` the same from
one block of features after the other, `zipf` says how many tokens each feature may have, `codes` holds the matches
and multiplies them, `kernels` are Triton twins for CUDA.
"""

from sae_tutorial.allocation.codes import SparseCodes, decode, encode_matches, stack_features, stack_tokens
from sae_tutorial.allocation.fast import feature_choice, mutual_choice, threshold_choice, token_choice
from sae_tutorial.allocation.zipf import ZipfFit, fit_zipf, zipf_capacity

__all__ = [
    "SparseCodes",
    "ZipfFit",
    "decode",
    "encode_matches",
    "feature_choice",
    "fit_zipf",
    "mutual_choice",
    "stack_features",
    "stack_tokens",
    "threshold_choice",
    "token_choice",
    "zipf_capacity",
]
