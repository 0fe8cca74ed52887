"""Sparse allocation: affinities (tokens × features) in, SparseCodes (the matches) out.

`rules` defines the four choices in plain torch, `fast` computes the same with fewer passes, `zipf` says how many
tokens each feature may have, `codes` holds the matches and multiplies them.
"""

from sae_tutorial.allocation.codes import SparseCodes, decode, encode_matches
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
    "threshold_choice",
    "token_choice",
    "zipf_capacity",
]
