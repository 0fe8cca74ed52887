"""The tables in benchmarks/README.md come from results/*.json.

python benchmarks/report.py            rewrite what stands between the markers
python benchmarks/report.py --check    change nothing, fail if the page and the results disagree
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import common

PAGE = Path(__file__).resolve().parent / "README.md"
# The order of the page. Results of other machines (training_step-cuda.json, …) stand behind all of the first.
ORDER = [
    "training_step", "allocation", "gradients", "memory", "scaling", "processes", "many_gpus", "oracle",
    "harvest", "superposition", "patching", "pursuit", "evidence",
]  # fmt: skip
MARKED = re.compile(r"(<!-- (targets|tables) -->\n).*?(<!-- /\2 -->)", flags=re.S)


def results(folder: Path = common.RESULTS) -> dict[str, dict[str, Any]]:
    """Name -> content of each result, in the order of the page."""
    found = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json")}

    def place(name: str) -> tuple[bool, int, str]:
        plain = name.split("-")[0]
        return name != plain, ORDER.index(plain) if plain in ORDER else len(ORDER), name

    return {name: found[name] for name in sorted(found, key=place)}


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def targets(found: dict[str, dict[str, Any]]) -> str:
    """Everything that has a bar, met or not; then, below, the ratios that have none."""
    rows: dict[bool, list[list[str]]] = {True: [], False: []}
    for content in found.values():
        for one in content["targets"]:
            barred = one["at_least"] is not None or one["at_most"] is not None
            cells = [one["what"], one["at"], common.bar_text(one), common.measured_text(one), common.verdict_text(one)]
            rows[barred].append(cells)
    parts = []
    if rows[True]:
        parts.append(markdown(["what", "at", "target", "measured, median (all rounds)", ""], rows[True]))
    if rows[False]:
        without = [[what, where, measured] for what, where, _, measured, _ in rows[False]]
        parts.append("Measured as well, without a target:\n\n" + markdown(["what", "at", "measured"], without))
    return "\n\n".join(parts) or "Nothing has been measured yet: `make bench`."


def machine_text(described: dict[str, Any]) -> str:
    """The machine in a sentence."""
    gpu = f"{described['gpu']}, " if "gpu" in described else ""
    return (
        f"{gpu}{described['cpu']}, {described['cores']} cores, {described['threads']} threads, torch "
        f"{described['torch']}, Python {described['python']}, {described['system']}, {described['date']}; "
        f"load before the start {described['load_at_start']}"
    )


def tables(found: dict[str, dict[str, Any]]) -> str:
    """Every table, under the script that it comes from."""
    parts = []
    for name, content in found.items():
        parts.append(f"### `{content['command']}`\n\n{content['question'][0].upper()}{content['question'][1:]}.")
        parts.append(f"Machine: {machine_text(content['machine'])}. Raw numbers: [{name}.json](results/{name}.json).")
        for one in content["tables"]:
            parts.append(f"**{one['title']}**\n\n{markdown(one['columns'], one['rows'])}")
        picture = common.RESULTS / f"{name}.png"
        if picture.exists():
            parts.append(f"![{content['question']}](results/{name}.png)")
    return "\n\n".join(parts)


def rewritten(page: str, found: dict[str, dict[str, Any]]) -> str:
    """The page with everything between its markers made anew."""
    made = {"targets": targets(found), "tables": tables(found)}
    return MARKED.sub(lambda match: f"{match[1]}\n{made[match[2]]}\n\n{match[3]}", page)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="report instead of rewriting")
    args = parser.parse_args()
    before = PAGE.read_text(encoding="utf-8")
    after = rewritten(before, results())
    if before == after:
        print("benchmarks/README.md agrees with benchmarks/results")
        return 0
    if args.check:
        print("benchmarks/README.md disagrees with benchmarks/results: python benchmarks/report.py rewrites it")
        return 1
    PAGE.write_text(after, encoding="utf-8")
    print("benchmarks/README.md rewritten")
    return 0


if __name__ == "__main__":
    sys.exit(main())
