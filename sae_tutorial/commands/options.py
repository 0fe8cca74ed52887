"""Settings from a TOML file and from flags, where flags have the last word.

    model = "stories"           # fields of Reading
    hook = "blocks.1.hook_resid_post"

    [train]                     # fields of TrainSettings
    steps = 2000

    [[sae]]                     # fields of SAEConfig, a table for each SAE of the run
    rule = "token_choice"
    k = 32

Every field is a flag of the same name (`--lr 0.001`), and its help is the text that stands beside the field.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sae_tutorial.activations.files import path_of


def add_fields(
    parser: argparse.ArgumentParser,
    settings: Any,
    title: str,
    leave_out: Sequence[str] = (),
    texts: Sequence[str] = (),
    usual: Mapping[str, str] | None = None,
) -> None:
    """A flag for each field of a described dataclass; what is not given stays away from the result. `texts` are taken
    as they are written; `usual` says what stands for those whose default is not the last word."""
    group = parser.add_argument_group(title)
    for field in dataclasses.fields(settings):
        if field.name not in leave_out:
            known = {} if field.default is dataclasses.MISSING else {field.name: repr(field.default)}
            known |= {field.name: usual[field.name]} if usual and field.name in usual else {}
            default = f" (default {known[field.name]})" if known else ""
            group.add_argument(
                f"--{field.name.replace('_', '-')}",
                dest=field.name,
                type=text_of if field.name in texts else value_of,
                default=argparse.SUPPRESS,
                metavar="VALUE",
                help=f"{field.metadata['help']}{default}".replace("%", "%%"),
            )


def value_of(text: str) -> Any:
    """A value as TOML or Python writes it: 0.1, true, True, [1, 2], (1, 2); "none" is None, anything else a text."""
    if text.lower() == "none":
        return None
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        pass
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def text_of(text: str) -> str | None:
    return None if text.lower() == "none" else text


def read_toml(path: str | None, known: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """The settings of a file. `known`: the names that may stand outside of all tables (""), in "train" and in "sae".

    Raises ValueError that names a field that nobody knows, or the line where the file is no TOML.
    """
    if path is None:
        return {}
    file = path_of("--config", path)
    try:
        found = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"--config {file}: there is no such file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"--config {file} is no TOML: {error}") from None
    saes = found.get("sae", [])
    are_tables = isinstance(saes, list) and all(isinstance(one, dict) for one in saes)
    if not isinstance(found.get("train", {}), dict) or not are_tables:
        raise ValueError(f"--config {file}: write [train] for one table of settings, and [[sae]] for each SAE")
    tables = [("", {key: 0 for key in found if key not in known}), ("train", found.get("train", {}))]
    for where, table in [*tables, *(("sae", one) for one in saes)]:
        if unknown := [key for key in table if key not in known[where]]:
            place = f"[{where}]" if where else "outside of tables"
            raise ValueError(
                f"--config {file}: {unknown[0]!r} is no setting {place}; there are {', '.join(known[where])}"
            )
    return found


def fields_of(settings: Any, leave_out: Sequence[str] = ()) -> list[str]:
    return [field.name for field in dataclasses.fields(settings) if field.name not in leave_out]


def given(args: argparse.Namespace, names: Sequence[str]) -> dict[str, Any]:
    """Of these names, those that stand on the command line."""
    return {name: value for name, value in vars(args).items() if name in names}


def writable(path: str | Path, name: str = "--out") -> Path:
    """The path of a folder to write to, or OSError that says why it cannot be."""
    folder = path_of(name, path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"{name} {folder} cannot be made: {error.strerror}") from None
    return folder
