"""A language model that is asked questions: behind an HTTP address, or in this process.

    chat = HTTPChat.from_environment()     any address that speaks OpenAI's protocol: OPENAI_BASE_URL, OPENAI_MODEL, …
    chat = LocalChat()                     SmolLM2-135M-Instruct, which the package brings: small, and offline
    chat.answer([{"role": "user", "content": "Name a colour."}])
    chat.weigh([{"role": "user", "content": "Is blood red?"}], ["Yes", "No"])      their probabilities

Answers of an HTTP model are kept on the disk, so a run that stops goes on where it was and costs nothing twice.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch

from sae_tutorial.activations.files import cache_folder, write_atomically
from sae_tutorial.activations.forward import fused_forward

Messages = Sequence[dict[str, str]]
AGAIN = (408, 409, 429, 500, 502, 503, 504)  # answers after which it is worth asking once more
TOP = 20  # likeliest first tokens that are asked for


class Chat(Protocol):
    def answer(self, messages: Messages, max_tokens: int = 100) -> str:
        """The likeliest answer."""
        ...

    def weigh(self, messages: Messages, answers: Sequence[str]) -> list[float]:
        """Probabilities of these answers, by how they begin; they sum to 1."""
        ...


@dataclass(frozen=True)
class HTTPChat:
    """A model behind an address that speaks OpenAI's protocol (`/chat/completions`): a service, or a server of one's
    own such as vLLM or llama.cpp.

    timeout      seconds for one question
    retries      how often to ask again where nobody answers, or the answer is "later": after 1, 2, 4, … seconds, or
                 as long as the server says
    folder       where answers are kept; None: the cache folder "chat"
    """

    base_url: str
    model: str
    key: str | None = field(default=None, repr=False)
    timeout: float = 60.0
    retries: int = 5
    folder: Path | None = None

    @classmethod
    def from_environment(cls, **how: Any) -> HTTPChat:
        """With OPENAI_BASE_URL, OPENAI_MODEL and, where the address wants one, OPENAI_API_KEY. Nothing else is looked
        at, so that no key stands in a notebook. Raises ValueError that names what is missing."""
        missing = [name for name in ("OPENAI_BASE_URL", "OPENAI_MODEL") if not os.environ.get(name)]
        if missing:
            raise ValueError(
                f"{' and '.join(missing)} must be set in the environment, for example "
                "OPENAI_BASE_URL=http://localhost:8000/v1 OPENAI_MODEL=my-model; or use LocalChat()"
            )
        found = (os.environ["OPENAI_BASE_URL"], os.environ["OPENAI_MODEL"], os.environ.get("OPENAI_API_KEY"))
        return cls(*found, **how)

    def answer(self, messages: Messages, max_tokens: int = 100) -> str:
        return str(self._ask(messages, max_tokens=max_tokens)["message"]["content"]).strip()

    def weigh(self, messages: Messages, answers: Sequence[str]) -> list[float]:
        """Where the server gives no probabilities, the answer that its text begins with has probability 1."""
        choice = self._ask(messages, max_tokens=4, logprobs=True, top_logprobs=TOP)
        first = ((choice.get("logprobs") or {}).get("content") or [{}])[0].get("top_logprobs") or []
        likely = [(one["token"].strip().lower(), math.exp(one["logprob"])) for one in first]
        found = [sum(p for token, p in likely if token and a.lower().startswith(token)) for a in answers]
        if not sum(found):
            said = str(choice["message"]["content"]).strip().lower()
            found = [float(said.startswith(answer.lower())) for answer in answers]
        return [p / sum(found) for p in found] if sum(found) else [1 / len(answers)] * len(answers)

    def _ask(self, messages: Messages, **how: Any) -> dict[str, Any]:
        """The first choice of the server's answer, or of the one that was kept."""
        question = {"model": self.model, "messages": list(messages), "temperature": 0, "seed": 0} | how
        name = hashlib.sha256(json.dumps([self.base_url, question], sort_keys=True).encode()).hexdigest()
        kept = (self.folder or cache_folder("chat")) / f"{name}.json"
        if kept.exists():
            return json.loads(kept.read_text())
        choice = self._post(question)
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(kept, json.dumps(choice).encode())
        return choice

    def _post(self, question: dict[str, Any]) -> dict[str, Any]:
        import httpx

        url = f"{self.base_url.rstrip('/')}/chat/completions"
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        trouble = ""
        for attempt in range(self.retries + 1):
            try:
                reply = httpx.post(url, json=question, headers=headers, timeout=self.timeout)
            except httpx.TransportError as error:  # nobody there, or no answer in time
                trouble, wait = f"{type(error).__name__}: {error}", 2.0**attempt
            else:
                if reply.status_code == 200:
                    return _choice(reply)
                trouble = f"status {reply.status_code}: {reply.text[:200]}"
                if reply.status_code not in AGAIN:
                    raise ConnectionError(f"{url} refused the question ({trouble}). {_fix(reply.status_code)}")
                wait = _seconds(reply.headers.get("retry-after"), 2.0**attempt)
            if attempt < self.retries:
                time.sleep(min(wait, self.timeout))
        raise ConnectionError(f"{url} gave no answer in {self.retries + 1} attempts ({trouble}); is the address right?")


def _choice(reply: Any) -> dict[str, Any]:
    try:
        choice = reply.json()["choices"][0]
        choice["message"]["content"]
        return choice
    except (ValueError, KeyError, IndexError, TypeError):
        raise ConnectionError(
            f"{reply.url} answered with something else than a chat completion: {reply.text[:200]!r}"
        ) from None


def _fix(status: int) -> str:
    fixes = {401: "Set OPENAI_API_KEY.", 403: "Set OPENAI_API_KEY to a key that may use this model."}
    return fixes.get(status, "See OPENAI_BASE_URL and OPENAI_MODEL.")


def _seconds(said: str | None, otherwise: float) -> float:
    try:
        return max(0.0, float(str(said)))
    except ValueError:  # none, or a date
        return otherwise


class LocalChat:
    """SmolLM2-135M-Instruct in this process, or another instructed model that `load_language_model` loaded."""

    def __init__(self, model: Any = None) -> None:
        self._model = model

    @cached_property
    def model(self) -> Any:
        from sae_tutorial.activations import load_language_model

        return self._model or load_language_model("smollm2")

    def ids(self, messages: Messages) -> list[int]:
        """The conversation as tokens, up to where the answer begins."""
        text = self.model.tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
        return self.model.tokenizer.encode(text, add_special_tokens=False)

    @torch.no_grad()
    def answer(self, messages: Messages, max_tokens: int = 100) -> str:
        from transformers import DynamicCache

        model, cache, said = self.model, DynamicCache(), []
        new = torch.tensor([self.ids(messages)], device=model.cfg.device)
        with fused_forward(model):
            for _ in range(max_tokens):
                logits_V = model(new, return_type="logits", past_key_values=cache, use_cache=True)[0, -1]
                new = logits_V.argmax()[None, None]
                if int(new) == model.tokenizer.eos_token_id:
                    break
                said.append(int(new))
        return model.tokenizer.decode(said).strip()

    @torch.no_grad()
    def weigh(self, messages: Messages, answers: Sequence[str]) -> list[float]:
        model = self.model
        first = [model.tokenizer.encode(answer, add_special_tokens=False)[0] for answer in answers]
        with fused_forward(model):
            tokens = torch.tensor([self.ids(messages)], device=model.cfg.device)
            logits_V = model(tokens, return_type="logits", use_cache=False)[0, -1].float()
        return logits_V[first].softmax(0).tolist()
