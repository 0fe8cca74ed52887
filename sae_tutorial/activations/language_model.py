"""Load a language model with hooks. The only module that touches TransformerLens.

A model comes back in compatibility mode: the weights of each LayerNorm are folded into the layer after it, what writes
to the residual stream is centred, and so is the unembedding. The predicted probabilities stay what they were (logits
move by one constant per position), and every component's output can be read as directions in one shared space.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from sae_tutorial.activations import hub
from sae_tutorial.activations.files import ASSETS, path_of, read_asset
from sae_tutorial.activations.smollm2 import smollm2_folder

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

STORIES = ASSETS / "models" / "stories"
FILES = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
WEIGHTS = ("*.safetensors", "*.bin")
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt")  # any one of them


def load_language_model(
    name: str | Path | nn.Module = "stories",
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    tokenizer: Any = None,
) -> TransformerBridge:
    """A language model with hooks, in compatibility mode, ready to be read.

    Args:
        name: `"stories"` (embedded: four layers, d_model 256, context 256; needs no network), `"smollm2"` (SmolLM2-135M
            of the extra `real`: 30 layers, d_model 576, context 8,192; converted on first use), an id on the Hugging
            Face hub that TransformerLens supports (`"gpt2"`), a local folder in Hugging Face format, or a Hugging Face
            model object, which becomes part of the result and whose weights are changed: pass a deepcopy to keep yours.
        device: default CUDA if there is one, else the CPU. (Apple's MPS computes some things wrongly with some
            versions of torch: name it to use it.) A model object stays where it is.
        dtype: default float32, which a CPU is fastest with; a model object keeps its own.
        tokenizer: only needed where `name` comes without one. A model object looks for its tokenizer where it was
            loaded from; if there is none it works on token ids only.

    Returns:
        A TransformerBridge in eval mode, its parameters frozen: `model.to_tokens(text)` puts the beginning-of-text
        token first, `model(tokens)` gives logits (batch, context, vocabulary). Gradients with respect to an activation
        are still there for a hook that calls `requires_grad_()` on it.

    Raises FileNotFoundError if the folder, or something in it, is missing, ModuleNotFoundError (it names the command)
    where the packages of "smollm2" are, ConnectionError if the hub is needed and out of reach, and TypeError or
    ValueError for arguments of the wrong kind, a model that is not on the hub, an architecture that TransformerLens
    does not know, a model object in use, and a damaged package.
    """
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise TypeError(f"dtype must be a torch.dtype of floating point, such as torch.bfloat16, got {dtype!r}")
    if not (tokenizer is None or hasattr(tokenizer, "bos_token")):
        raise TypeError(f"tokenizer must be a tokenizer of transformers, got {tokenizer!r}")
    folder = None if isinstance(name, nn.Module) else _local_folder(name, tokenizer)
    with hub.quiet():  # it logs and warns while it is imported, which happens only here
        import transformer_lens.model_bridge  # noqa: F401
    # Weights are drawn and overwritten at once; the caller's random numbers must not depend on that.
    gpus = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=gpus), ExitStack() as stack:
        stack.enter_context(hub.quiet(downloads=folder is None))
        if isinstance(name, nn.Module):
            bridge = _wrap(name, device, dtype, tokenizer)
        elif folder is not None:
            bridge = _boot(str(folder), device, dtype, tokenizer)
        else:
            online = stack.enter_context(hub.offline_unless_reachable())
            bridge = _boot_from_hub(str(name), online, device, dtype, tokenizer)
        bridge.enable_compatibility_mode(disable_warnings=True)
    bridge.cfg.default_prepend_bos = True  # as rows of text begin; TransformerLens leaves it out for some families
    for parameter in nn.Module.parameters(bridge):  # the bridge's own parameters() leaves out what it derived
        parameter.requires_grad_(False)
    return bridge.eval()


def _local_folder(given: Any, tokenizer: Any) -> Path | None:
    """The folder that `given` means, complete, or None if it must be an id on the hub."""
    if str(given) == "stories":
        for file in FILES:
            read_asset(STORIES / file)  # raises if it is damaged
        return STORIES
    if str(given) == "smollm2":
        return smollm2_folder()
    folder, name = path_of("name", given), str(given)
    if folder.exists() and not folder.is_dir():
        raise FileNotFoundError(f"name={name!r} is a file; give the folder that holds config.json and the weights.")
    if not folder.exists():
        if name.startswith((".", "~")) or folder.is_absolute() or name.count("/") > 1:
            raise FileNotFoundError(f"name={name!r}: there is no folder {folder}.")
        return None
    if not (folder / "config.json").exists():
        raise FileNotFoundError(f"name={name!r}: no config.json in it, so this is not a Hugging Face model folder.")
    if not any(path for pattern in WEIGHTS for path in folder.glob(pattern)):
        raise FileNotFoundError(f"name={name!r}: no weights ({' or '.join(WEIGHTS)}) in it.")
    if tokenizer is None and not _has_tokenizer(folder):
        raise FileNotFoundError(
            f"name={name!r}: no tokenizer ({', '.join(TOKENIZERS)}) in it. Save one there with "
            "tokenizer.save_pretrained(folder), or pass tokenizer=..."
        )
    return folder


def _has_tokenizer(folder: Path) -> bool:
    return any((folder / file).exists() for file in TOKENIZERS)


def _boot(source: str, device: Any, dtype: torch.dtype | None, tokenizer: Any) -> TransformerBridge:
    from transformer_lens.model_bridge import TransformerBridge

    with _known_architecture(source), _whole_weights(source):
        return TransformerBridge.boot_transformers(
            source, device=device, dtype=dtype or torch.float32, tokenizer=_with_bos(tokenizer)
        )


def _boot_from_hub(name: str, online: bool, *options: Any) -> TransformerBridge:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        return _boot(name, *options)
    except OSError as error:
        if not online:
            raise ConnectionError(
                f"name={name!r} is on the Hugging Face hub, which cannot be reached from here (or HF_HUB_OFFLINE is "
                'set), and this machine has no copy of it. Without a network use name="stories", which is embedded in '
                "the package, or the path of a local folder in Hugging Face format."
            ) from error
        if any(isinstance(e, RepositoryNotFoundError) and not isinstance(e, GatedRepoError) for e in _causes(error)):
            raise ValueError(
                f"name={name!r} is neither a local folder nor a model on the Hugging Face hub that you may see. "
                'Check the spelling ("gpt2", "EleutherAI/pythia-70m"), or use name="stories", the embedded model.'
            ) from error
        raise


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _wrap(model: nn.Module, device: Any, dtype: torch.dtype | None, tokenizer: Any) -> TransformerBridge:
    """A bridge around a Hugging Face model object, where it is and as precise as it is unless told otherwise."""
    from transformer_lens.model_bridge import TransformerBridge
    from transformer_lens.model_bridge.generalized_components.base import GeneralizedComponent
    from transformer_lens.model_bridge.sources import build_bridge_from_module
    from transformer_lens.model_bridge.sources.transformers import determine_architecture_from_hf_config
    from transformer_lens.utilities.attn_implementation import force_eager_attention

    if isinstance(model, TransformerBridge) or any(isinstance(m, GeneralizedComponent) for m in model.modules()):
        raise ValueError(
            "name is a model object that already belongs to a TransformerBridge. Load it anew, or pass "
            "copy.deepcopy(model) the first time."
        )
    if not hasattr(model, "config"):
        raise ValueError(f"name is a {type(model).__name__} without a config; a Hugging Face model object is needed.")
    model = model.to(device=device, dtype=dtype)
    with _known_architecture(type(model).__name__):
        architecture = determine_architecture_from_hf_config(model.config)
        force_eager_attention(model)  # other kinds of attention never show their scores and patterns
        return build_bridge_from_module(
            model,
            architecture,
            hf_config=model.config,
            tokenizer=_with_bos(tokenizer if tokenizer is not None else _tokenizer_of(model)),
            model_name=getattr(model, "name_or_path", "") or architecture,
        )


@contextmanager
def _known_architecture(source: str) -> Iterator[None]:
    """A short error where TransformerLens does not know an architecture; its own message lists all that it knows."""
    try:
        yield
    except ValueError as error:
        if "rchitecture" not in str(error):
            raise
        found = str(error).partition("Config architectures:")[2].partition(", Model type:")[0].strip()
        found = found or str(error).partition(". ")[0]
        raise ValueError(
            f"name={source!r}: TransformerLens does not support this architecture ({found}). "
            "TransformerBridge.list_supported_models() names the models that it does."
        ) from error


@contextmanager
def _whole_weights(source: str) -> Iterator[None]:
    """A short error where a download or a copy has ended too early."""
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        raise ValueError(
            f"name={source!r}: its weights cannot be read ({error}). A download or a copy of them ended too early: "
            "delete them, and fetch them again."
        ) from error


def _tokenizer_of(model: nn.Module) -> Any:
    """The tokenizer that lies where `model` was loaded from, or None."""
    from transformers import AutoTokenizer

    source = getattr(model, "name_or_path", "")
    if not source or (Path(source).is_dir() and not _has_tokenizer(Path(source))):
        return None
    with nullcontext() if Path(source).is_dir() else hub.offline_unless_reachable():
        try:
            return AutoTokenizer.from_pretrained(source)
        except (OSError, ValueError):
            return None


def _with_bos(tokenizer: Any) -> Any:
    """A copy of the tokenizer that puts its beginning-of-text token first, all other settings as they are."""
    if tokenizer is None or tokenizer.bos_token is None or getattr(tokenizer, "add_bos_token", False):
        return tokenizer
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.add_bos_token = True
    # TransformerLens looks here as well, and otherwise loads it anew.
    tokenizer.init_kwargs = {"name_or_path": ""} | tokenizer.init_kwargs | {"add_bos_token": True}
    return tokenizer
