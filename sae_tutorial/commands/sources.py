"""Which model, which text, which hook: as named on a command line or in TOML, and as a trained SAE remembers them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from jaxtyping import Int
from torch import Tensor

from sae_tutorial.activations.arguments import as_whole
from sae_tutorial.activations.files import path_of
from sae_tutorial.activations.language_model import load_language_model
from sae_tutorial.activations.shipped_text import TEXT_OF, TRAINED_ON, story_tokens
from sae_tutorial.activations.text import text_tokens
from sae_tutorial.autoencoder.fields import check_fields, choice, described, setting, whole

DTYPES = ("float32", "bfloat16")


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError(f"{name} must be a text, got {value!r}")
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
    device: str | None = setting(None, "where training and measuring run; None: a GPU where there is one", _text)

    def __post_init__(self) -> None:
        check_fields(self)
        as_whole("held_out", self.held_out, 1)

    def load(self) -> tuple[Any, str]:
        """The model, and the name of the hook."""
        model = load_language_model(self.model, device=self.device)
        middle = max(0, model.cfg.n_layers // 2 - 1)
        return model, self.hook or f"blocks.{middle}.hook_resid_post"

    def rows(self, model: Any) -> tuple[Int[Tensor, "rows context"], Int[Tensor, "held_out context"]]:
        """To train on, and to measure on. Raises ValueError where nothing would be left to train on."""
        if self.text is not None:
            try:
                tokens = text_tokens(self.text, model, self.context, limit=self.tokens)
            except FileNotFoundError as error:
                raise FileNotFoundError(str(error).replace("path_or_dataset=", "text=")) from None
        elif self.model in TEXT_OF:
            wanted = min(self.tokens, TRAINED_ON[self.model].n_tokens)
            tokens = story_tokens(wanted, self.context, source=TRAINED_ON[self.model].source, model=self.model)
        else:
            raise ValueError(f"model={self.model!r} comes without a text: name a file or a data set with --text")
        if len(tokens) <= self.held_out:
            raise ValueError(
                f"held_out={self.held_out}: the text has only {len(tokens)} rows of {self.context} tokens; hold out "
                "fewer, or read more text"
            )
        return tokens[: -self.held_out], tokens[-self.held_out :]

    def remembered(self, hook: str) -> dict[str, Any]:
        """What an SAE that was trained on this keeps in its folder; of a file its whole path."""
        text = self.text
        if text is not None and path_of("text", text).exists():
            text = str(path_of("text", text).resolve())
        return asdict(self) | {"hook": hook, "text": text}


def of_metadata(about: dict[str, Any], changes: dict[str, Any]) -> Reading:
    """The reading that a folder's metadata tells of, with what was asked for instead. An SAE from elsewhere tells its
    model and hook only."""
    own = dict(about.get("reading") or {})
    if not own:
        named = {"model": about.get("model_name"), "hook": about.get("hook_name"), "context": about.get("context_size")}
        own = {name: value for name, value in named.items() if value is not None}
    return Reading(**own | changes)
