"""Which model, which text, which hook: as named on a command line or in TOML, and as a trained SAE remembers them."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from sae_tutorial.activations.files import path_of
from sae_tutorial.activations.language_model import load_language_model
from sae_tutorial.activations.shipped_text import TEXT_OF, TRAINED_ON, shipped_tokens, story_samples, story_tokens
from sae_tutorial.activations.text import text_tokens
from sae_tutorial.autoencoder.fields import check_fields, choice, described, setting, whole

DTYPES = ("float32", "bfloat16")


ARGUMENTS = {"path_or_dataset=": "text=", "limit=": "tokens=", "n_tokens=": "tokens="}  # of functions -> of the user
TEXTS = ("model", "text", "hook", "device")  # fields that are never a number, whatever they look like


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError(f"{name} must be a text, got {value!r}")
    return value


def _device(name: str, value: Any) -> str:
    try:
        kind = torch.device(_text(name, value)).type
    except RuntimeError:
        raise ValueError(f"{name}={value!r} is no device; cpu, cuda and mps are some") from None
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"{name}={value!r}: there is no CUDA here; leave it away, or say cpu")
    return value


@described
@dataclass(frozen=True)
class Reading:
    """What is read, and where.

    Raises TypeError or ValueError that name the field, its value and what it may be.
    """

    model: str = setting("stories", '"stories", "smollm2", a name on the hub, or the folder of a model', _text)
    text: str | None = setting(
        None, "a text file or a data set on the hub; None: the text that comes with the model", _text
    )
    tokens: int = whole(2_000_000, "how many tokens of it are read at most", least=2)
    context: int = whole(256, "tokens in a row", least=2)
    hook: str | None = setting(
        None, "where activations are read; None: the residual stream after the middle layer", _text
    )
    held_out: int = whole(64, "rows at the end that are not trained on, for measuring")
    dtype: str = choice("float32", "how activations are kept", DTYPES)
    device: str | None = setting(None, "where training and measuring run; None: a GPU where there is one", _device)

    def __post_init__(self) -> None:
        check_fields(self)

    def load(self) -> tuple[Any, str]:
        """The model, and the name of the hook."""
        model = load_language_model(self.model, device=self.device)
        middle = max(0, model.cfg.n_layers // 2 - 1)
        return model, self.hook or f"blocks.{middle}.hook_resid_post"

    def rows(self, model: Any) -> tuple[Int[Tensor, "rows context"], Int[Tensor, "held_out context"]]:
        """To train on, and to measure on: of texts that come with the model, no story is in both. Raises ValueError
        where nothing would be left to train on."""
        try:
            tokens, sample = self._tokens(model)
        except (ValueError, OSError) as error:
            told = str(error)
            for theirs, ours in ARGUMENTS.items():
                told = told.replace(theirs, ours)
            raise type(error)(told) from None
        if len(tokens) <= self.held_out:
            raise ValueError(
                f"held_out={self.held_out}: the text has only {len(tokens)} rows of {self.context} tokens; hold out "
                "fewer, or read more text"
            )
        apart = ~torch.isin(sample[: -self.held_out], sample[-self.held_out :])
        return tokens[: -self.held_out][apart], tokens[-self.held_out :]

    def _tokens(self, model: Any) -> tuple[Int[Tensor, "rows context"], Int[Tensor, " rows"]]:
        """Rows, and which sample of the text each is from."""
        if self.text is not None:
            rows = text_tokens(self.text, model, self.context, limit=self.tokens)
            return rows, torch.arange(len(rows))
        if self.model not in TEXT_OF:
            raise ValueError(f"model={self.model!r} comes without a text: name a file or a data set with --text")
        corpus = TRAINED_ON[self.model]
        from_where: Any = {"source": corpus.source, "model": self.model}
        n_tokens = min(self.tokens, corpus.n_tokens, shipped_tokens(self.context, **from_where))
        asked = (n_tokens, self.context)
        return story_tokens(*asked, **from_where), story_samples(*asked, **from_where)

    def remembered(self, hook: str) -> dict[str, Any]:
        """What an SAE that was trained on this keeps in its folder; of files their whole paths, of machines nothing."""
        whole = {name: _whole(getattr(self, name)) for name in ("model", "text")}
        return {**asdict(self), **whole, "hook": hook, "device": None}


def _whole(name: str | None) -> str | None:
    """A path that is there as an absolute one; any other name as it is."""
    there = name is not None and path_of("text", name).exists()
    return str(path_of("text", name).resolve()) if there else name


def name_of(text: str | None) -> str:
    """What a text is called where others read it: of a file not its folders, which `remembered` wrote in full; a data
    set on the hub as it is."""
    if not text:
        return "the text that comes with the model"
    return Path(text).name if Path(text).is_absolute() else text


def fingerprint(tokens: Int[Tensor, "rows context"]) -> str:
    """By which the same rows are known again."""
    return hashlib.sha256(tokens.cpu().numpy().tobytes()).hexdigest()[:16]


def of_metadata(about: dict[str, Any], changes: dict[str, Any]) -> Reading:
    """The reading that a folder's metadata tells of, with what was asked for instead. An SAE from elsewhere tells its
    model and hook only. Raises ValueError for one that tells neither, and is told neither."""
    own = dict(about.get("reading") or {})
    if not own:
        named = {"model": about.get("model_name"), "hook": about.get("hook_name"), "context": about.get("context_size")}
        own = {name: value for name, value in named.items() if value is not None}
    for name in ("model", "hook"):
        if not (own | changes).get(name):
            raise ValueError(f"this SAE does not say which {name} it is for: name it with --{name}")
    return Reading(**own | changes)


def rows_to_measure(reading: Reading, about: dict[str, Any], model: Any) -> Int[Tensor, "rows context"]:
    """Rows of this reading that the SAE was not trained on.

    Raises ValueError if they are cut otherwise from the text that it was trained on, or if that text has changed: rows
    that it has seen would be among them.
    """
    held_out, own = reading.rows(model)[1], about.get("reading")
    if not own or (_whole(reading.text), _whole(reading.model)) != (own["text"], own["model"]):
        return held_out
    for name in ("tokens", "context"):
        if getattr(reading, name) != own[name]:
            said = f"{name}={getattr(reading, name)}, it was trained on {own[name]}"
            raise ValueError(f"{said}: some of these rows would be rows it has seen; leave --{name} away")
    if reading.held_out > own["held_out"]:
        raise ValueError(f"held_out={reading.held_out}: only {own['held_out']} rows were held out of its training")
    if reading.held_out == own["held_out"] and fingerprint(held_out) != about.get("held_out", fingerprint(held_out)):
        raise ValueError(f"text={reading.text!r} has changed since the training: name another text")
    return held_out
