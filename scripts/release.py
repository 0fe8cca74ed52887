"""Builds wheel and sdist, looks into them, installs the wheel into an empty environment and tries it.

    python scripts/release.py            into dist/
    python scripts/release.py --no-try   builds and looks only, seconds
    python scripts/release.py --hosted torch==2.10.0 numpy==2.0.2 scipy==1.16.3 ipywidgets==7.7.1
                                         tries it where these are installed already, and have to stay: Colab's versions
                                         of February 2026, from its published list (googlecolab/backend-info)

What is tried: the command, the embedded model, a shipped SAE on it, and the data that the notebooks read. Publishing is
done by `.github/workflows/release.yml`, for a tag.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path, PurePosixPath

import sae_tutorial

ROOT = Path(__file__).resolve().parent.parent
NAME = f"sae_tutorial-{sae_tutorial.__version__}"
LIMIT_MB = 100  # what a package index takes
TRIED = """
from sae_tutorial import evaluate, load_language_model, reference_sae, story_tokens
from sae_tutorial.course.results import load_judged
model, sae = load_language_model("stories"), reference_sae("token_choice")
found = evaluate(sae, model, story_tokens(2_000, 128), sae.hook_name)
assert 0 < found.fvu < 0.2, found
assert len(load_judged()) > 30
print(f"the shipped SAE leaves {found.fvu:.1%} of the variance")
"""


def build(out: Path) -> tuple[Path, Path]:
    shutil.rmtree(out, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "build", "--outdir", str(out), str(ROOT)], check=True, capture_output=True)
    return out / f"{NAME}-py3-none-any.whl", out / f"{NAME}.tar.gz"


def faults(wheel: Path, sdist: Path) -> list[str]:
    """What is missing from the two, too much in them, or too large."""
    with zipfile.ZipFile(wheel) as archive:
        in_wheel = set(archive.namelist())
        [entry_points] = [archive.read(name).decode() for name in in_wheel if name.endswith("entry_points.txt")]
    with tarfile.open(sdist) as archive:
        in_sdist = {str(PurePosixPath(*PurePosixPath(name).parts[1:])) for name in archive.getnames()}
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True)
    files = {name for name in tracked.stdout.split("\0") if name}
    package = {name for name in files if name.startswith("sae_tutorial/")}
    found = [f"the wheel lacks {name}" for name in sorted(package - in_wheel)]
    found += [f"the sdist lacks {name}" for name in sorted(files - in_sdist)]
    more = {name for name in in_wheel - package if not name.startswith(f"{NAME}.dist-info/")}
    found += [f"the wheel has {name}" for name in sorted(more)]
    if "sae-tutorial = sae_tutorial.__main__:main" not in entry_points:
        found.append("the wheel has no command sae-tutorial")
    for path in (wheel, sdist):
        if path.stat().st_size > LIMIT_MB * 1e6:
            found.append(f"{path.name} takes {path.stat().st_size / 1e6:.0f} MB, over {LIMIT_MB}")
    return found


def try_wheel(wheel: Path, flags: list[str], hosted: list[str]) -> None:
    """Installs it into an empty environment, far from this folder, and uses it. With `hosted` requirements, these are
    there before, and no versions but theirs are asked for. Raises CalledProcessError if something fails, RuntimeError
    where a hosted version has changed."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        bin_folder = Path(folder) / "bin"
        constraints = [] if hosted else ["-c", str(ROOT / "constraints.txt")]
        if hosted:
            subprocess.run([str(bin_folder / "python"), "-m", "pip", "install", "-q", *flags, *hosted], check=True)
            before = _versions(bin_folder / "python", hosted)
        subprocess.run(
            [str(bin_folder / "python"), "-m", "pip", "install", "-q", *flags, *constraints, str(wheel)], check=True
        )
        if hosted and (after := _versions(bin_folder / "python", hosted)) != before:
            raise RuntimeError(f"installing the wheel changed {before} to {after}")
        for command in ("sae-tutorial", "--version"), ("python", "-c", TRIED):
            subprocess.run([str(bin_folder / command[0]), *command[1:]], check=True, cwd=folder)


def _versions(python: Path, requirements: list[str]) -> dict[str, str]:
    names = [requirement.split("==")[0] for requirement in requirements]
    code = f"import json, importlib.metadata as m; print(json.dumps({{n: m.version(n) for n in {names!r}}}))"
    return json.loads(subprocess.run([str(python), "-c", code], check=True, capture_output=True, text=True).stdout)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    parser.add_argument("--no-try", action="store_true")
    parser.add_argument("--hosted", nargs="*", default=[], help="requirements that are there before, with versions")
    parser.add_argument("--pip", nargs="*", default=[], help="flags for pip, such as --extra-index-url=...")
    args = parser.parse_args()
    wheel, sdist = build(args.out)
    if found := faults(wheel, sdist):
        print("\n".join(found), file=sys.stderr)
        return 1
    if not args.no_try:
        try_wheel(wheel.resolve(), args.pip, args.hosted)
    sizes = ", ".join(f"{path.name} ({path.stat().st_size / 1e6:.0f} MB)" for path in (wheel, sdist))
    print(f"{args.out}: {sizes}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
