"""Text and a language model in, activations out.

arguments       numbers that are checked where they come in
files           files that are complete or absent, and notice damage; caches and shipped assets
memory          how much is held in memory at a time
ranks           the processes of a torch.distributed group, and what they tell each other
hub             the Hugging Face hub: quick and clear when it cannot be reached
smollm2         a real model without a hub, from a file on the package index
language_model  a name, a hub id or a folder becomes a model with hooks (all TransformerLens is here)
shipped_text    token ids that the package ships: what its models wrote, and books
text            token ids of a text file, or of a data set on the hub
kept_text       which tokens count: neither the beginning-of-text token nor padding, on either side
massive         the few tokens whose activations dwarf the others, which harvests and evaluations leave out
forward         the forward pass up to the hooks that are read, and no further
shards          activations on disk: checksummed pieces, written once
harvesting      the steps of a harvest: what is read, what is left out, and where it is written
store           `ActivationStore`: what was harvested, normalised, and shuffled over the whole store
"""

from sae_tutorial.activations.forward import read_hook
from sae_tutorial.activations.language_model import load_language_model
from sae_tutorial.activations.shipped_text import story_titles, story_tokens
from sae_tutorial.activations.store import ActivationStore
from sae_tutorial.activations.text import text_tokens

__all__ = ["ActivationStore", "load_language_model", "read_hook", "story_titles", "story_tokens", "text_tokens"]
