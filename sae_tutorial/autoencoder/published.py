"""SAEs on the Hugging Face hub: "org/repo/path/inside" as a folder on this machine."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from sae_tutorial.activations import hub
from sae_tutorial.activations.files import path_of

ID = re.compile(r"(?P<repo>\w[\w.-]*/\w[\w.-]*)(?P<inside>(/[^./\\:*?\[\]][^/\\:*?\[\]]*)*)/?")


def located(name: str | Path, revision: str | None, weights: Collection[str], beside: Collection[str]) -> Path:
    """The file or folder that `name` means: the one on this machine, else a copy of what has this id on the hub.

    Of a folder on the hub, the files called as in `weights` (one of which it must have) and `beside` are downloaded,
    into the hub's own cache. Raises ConnectionError without a network, FileNotFoundError for what is not on the hub,
    PermissionError for what asks for a login.
    """
    path = path_of("folder", name)
    found = ID.fullmatch(name) if isinstance(name, str) else None
    if found is None or path.exists() or path.parents[-2].exists():  # a name that begins like a folder here is a path
        if revision is not None:
            raise ValueError(f"revision={revision!r} is for ids on the Hugging Face hub, and {path} is a path")
        return path

    from huggingface_hub import HfApi, errors, snapshot_download

    repo, inside = found["repo"], Path(found["inside"].strip("/"))
    folder = inside.parent if inside.name in weights else inside
    wanted = [(folder / name).as_posix() for name in (*weights, *beside)] + [(folder.parent / "config.json").as_posix()]
    which = f"{repo!r} is no folder here, and on the Hugging Face hub "
    with hub.offline_unless_reachable() as online:
        try:
            root = Path(snapshot_download(repo, revision=revision, allow_patterns=wanted))
            if any((root / folder / name).exists() for name in weights):
                return root / inside
            if online:
                held = [Path(file) for file in HfApi().list_repo_files(repo, revision=revision)]
        except errors.GatedRepoError:
            raise PermissionError(which + "it asks for a login: accept its terms there, then `hf auth login`") from None
        except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
            what = "revision" if isinstance(error, errors.RevisionNotFoundError) else "repository"
            raise FileNotFoundError(f"{which}there is no such {what} that you may see ({revision=})") from None
        except Exception as error:  # of whatever library the connection is made with
            if online:
                raise ConnectionError(f"{which}it could not be downloaded: {error}") from error
    if not online:
        raise ConnectionError(
            f"{which}it cannot be looked up: the hub cannot be reached from here (or HF_HUB_OFFLINE is set), and this "
            f"machine has no copy of {(folder / 'its weights').as_posix()}. Give the path of a folder on this machine"
        )
    there = sorted({file.parent.as_posix() for file in held if file.name in weights})
    where = ", ".join(there[:8]) + " …" * (len(there) > 8) or "no folder"
    raise FileNotFoundError(f"{repo!r} on the Hugging Face hub has no SAE in {str(folder)!r}; it has them in {where}")
