"""Load a language model with hooks. The only module that touches TransformerLens.

A model comes back in compatibility mode: the weights of each LayerNorm are folded into the layer behind it, what writes
to the residual stream is centred, and so is the unembedding. The predicted probabilities stay what they were (logits
move by one constant per position), and every component's output can be read as directions in one shared space.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from sae_tutorial.activations import hub

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

STORIES = Path(__file__).parents[1] / "assets" / "models" / "stories"
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
        name: `"stories"` (embedded: four layers, d_model 256, context 256; needs no network), `"gpt2"` or any other id
            on the Hugging Face hub that TransformerLens supports, a local folder in Hugging Face format, or a Hugging
            Face model object. Such an object becomes part of the result and its weights are changed: pass a deepcopy
            to keep yours.
        device: default CUDA if there is one, else the CPU. (Apple's MPS computes some things wrongly with some
            versions of torch: name it to use it.) A model object stays where it is.
        dtype: default float32, which a CPU is fastest with; a model object keeps its own.
        tokenizer: only needed where `name` comes without one. A model object looks for its tokenizer where it was
            loaded from; if there is none it works on token ids only.

    Returns:
        A TransformerBridge in eval mode, its parameters frozen: `model.to_tokens(text)` puts the beginning-of-text
        token first, `model(tokens)` gives logits (batch, context, vocabulary). Gradients with respect to an activation
        are still there for a hook that calls `requires_grad_()` on it.

    Raises:
        FileNotFoundError: the folder, or something in it, is missing.
        ConnectionError: the hub is needed and cannot be reached.
        ValueError: no such model on the hub, an architecture that TransformerLens does not know, a model object in use.
    """
    folder = None if isinstance(name, nn.Module) else _local_folder(str(name), tokenizer)
    _import_transformer_lens()
    with ExitStack() as stack:
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


def _import_transformer_lens() -> None:
    """It logs and warns while it is imported, so this happens in silence, and only once it is needed."""
    with hub.quiet():
        import transformer_lens.model_bridge  # noqa: F401


def _local_folder(name: str, tokenizer: Any) -> Path | None:
    """The folder that `name` means, complete, or None if `name` must be an id on the hub."""
    folder = STORIES if name == "stories" else Path(name).expanduser()
    if not folder.is_dir():
        if folder.exists():
            raise FileNotFoundError(f"name={name!r} is a file; give the folder that holds config.json and the weights.")
        if name.startswith((".", "~")) or folder.is_absolute() or name.count("/") > 1 or name == "stories":
            raise FileNotFoundError(f"name={name!r}: there is no folder {folder}.")
        return None
    if not (folder / "config.json").exists():
        raise FileNotFoundError(f"name={name!r}: no config.json in it, so this is no Hugging Face model folder.")
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

    with _known_architecture(source):
        return TransformerBridge.boot_transformers(
            source, device=device, dtype=dtype or torch.float32, tokenizer=_with_bos(tokenizer)
        )


def _boot_from_hub(
    name: str, online: bool, device: Any, dtype: torch.dtype | None, tokenizer: Any
) -> TransformerBridge:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        return _boot(name, device, dtype, tokenizer)
    except OSError as error:
        causes = list(_causes(error))
        if not online:
            raise ConnectionError(
                f"name={name!r} is on the Hugging Face hub, which cannot be reached from here (or HF_HUB_OFFLINE is "
                'set), and this machine has no copy of it. Without a network use name="stories", which is embedded in '
                "the package, or the path of a local folder in Hugging Face format."
            ) from error
        if any(isinstance(e, RepositoryNotFoundError) and not isinstance(e, GatedRepoError) for e in causes):
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
    """Say it plainly when TransformerLens does not know an architecture; its own message lists all that it knows."""
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


def _tokenizer_of(model: nn.Module) -> Any:
    """The tokenizer that lies where `model` was loaded from, or None."""
    from transformers import AutoTokenizer

    source = getattr(model, "name_or_path", "")
    if not source:
        return None
    if Path(source).is_dir():
        return AutoTokenizer.from_pretrained(source) if _has_tokenizer(Path(source)) else None
    with hub.offline_unless_reachable():
        try:
            return AutoTokenizer.from_pretrained(source)
        except (OSError, ValueError):
            return None


def _with_bos(tokenizer: Any) -> Any:
    """The same tokenizer, set to put its beginning-of-text token first (through a folder: it must be reloaded)."""
    if tokenizer is None or tokenizer.bos_token is None or getattr(tokenizer, "add_bos_token", False):
        return tokenizer
    from transformers import AutoTokenizer

    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        return AutoTokenizer.from_pretrained(folder, add_bos_token=True)
