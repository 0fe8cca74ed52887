"""What a sparse autoencoder is, and the dictionaries beside it; saved and loaded.

fields           settings that are documented and checked where they stand
config           `SAEConfig`, and the table of allocation rules that everything asks
sae              `SparseAutoencoder`: an encoder, a rule, a decoder
matching         the matches of a batch, however large the table of affinities would be
distributed      the same of several processes, each with some of the tokens or features
parts            a part of an SAE for each of several processes, and the whole again
thresholds       what makes a rule of batches a rule of single tokens
rescaling        the same function with other weights: decoder rows of unit norm, mean and scale folded in
folders          a folder whose files change together, or not at all
reading          files of weights, read with suspicion, and the SAE that they make
other_libraries  the files of SAELens, sparsify, dictionary_learning and Gemma Scope
exporting        SAEs in the formats of these libraries
published        SAEs on the Hugging Face hub
saving           `save_sae` and `load_sae`: a folder that SAELens reads, too
shipped          `reference_sae`: the trained SAEs that come with the package
dictionaries     one interface for SAEs, PCA and other axes
pursuit          codes by search instead of by an encoder
"""

from sae_tutorial.autoencoder.config import SAEConfig
from sae_tutorial.autoencoder.sae import SparseAutoencoder
from sae_tutorial.autoencoder.saving import load_metadata, load_sae, save_sae
from sae_tutorial.autoencoder.shipped import reference_sae
from sae_tutorial.autoencoder.thresholds import measure_thresholds

__all__ = [
    "SAEConfig",
    "SparseAutoencoder",
    "load_metadata",
    "load_sae",
    "measure_thresholds",
    "reference_sae",
    "save_sae",
]
