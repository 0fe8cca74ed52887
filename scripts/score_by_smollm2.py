"""What explanations are worth to SmolLM2-135M-Instruct when it only reads: surprisal, embedding and intervention.

    python scripts/score_by_smollm2.py           one line for each feature, in the cache; goes on where it stopped
    python scripts/score_by_smollm2.py --ship    puts them into the package, for notebook 10

Features, text and explanations by statistics are those of `explain_by_smollm2.py`, and more of them. Each explanation
is scored beside that of the next feature, which is a control: on the same passages, and on the same texts that the
embedded model wrote with the feature switched on. Detection and fuzzing by the statistics themselves stand beside them.
Those explanations say where a feature is active. What it does may be something else, so the intervention also scores
the tokens whose logits its decoder row raises most, and as a control those that the next feature raises. A feature
takes some 15 seconds on one core that has nothing else to do.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import checksums
import kept_lines
import torch
from jaxtyping import Int
from torch import Tensor
from tqdm.auto import tqdm

from sae_tutorial import load_language_model, reference_sae, story_tokens
from sae_tutorial.activations.files import cache_folder
from sae_tutorial.course.reading_features.study import drawn, evidence_of
from sae_tutorial.course.results import SCORED
from sae_tutorial.evaluation.chat_judge import plain
from sae_tutorial.evaluation.explanations import (
    Explanation,
    Material,
    Statistics,
    StatisticsJudge,
    detection,
    explain_by_statistics,
    fuzzing,
    materials,
)
from sae_tutorial.evaluation.feature_evidence import FeatureEvidence
from sae_tutorial.evaluation.feature_pages import Words, promoted_tokens
from sae_tutorial.evaluation.model_scores import Embed, brought_to_mind, embedding, mean_stream, surprisals, written
from sae_tutorial.figures.feature_report import words_of

N_PROMPTS, LENGTH = 6, 17  # beginnings of stories, BOS and 16 tokens each: fewer, and the model cannot tell a story
STRENGTH, N_TOKENS = 4.0, 20  # at 1 one hardly sees what a feature does, at 8 the text falls apart
N_RAISED = 6
ITS_OWN, ANOTHER = "statistics", "another feature"
RAISED, RAISED_BY_ANOTHER = "raised", "raised by another feature"


def beginnings() -> Int[Tensor, "prompts positions"]:
    """Of stories as the embedded model writes them; whole samples, because only those begin where a story does."""
    return story_tokens(256 * N_PROMPTS, 256)[:, :LENGTH]


def raised(evidence: FeatureEvidence, sae: Any, model: Any, features: list[int], words: Words) -> list[Explanation]:
    """Of each feature what its decoder row makes likelier, in the words of an explanation."""
    found = []
    for most, _ in promoted_tokens(evidence, sae, model, features, N_RAISED):
        said = (f"“{word.strip() or word}”" for word in words([token for token, _ in most]))
        found.append(Explanation(f"raises {', '.join(dict.fromkeys(said))}"))
    return found


def scores_where_active(
    told: dict[str, Statistics], material: Material, reader: Any, embed: Embed, words: Words
) -> dict[str, dict[str, Any]]:
    judge = StatisticsJudge()
    by_name = zip(told.items(), surprisals(list(told.values()), material, reader, words))
    return {
        name: {
            "text": explanation.text,
            "surprisal": surprise,
            "embedding": embedding(explanation, material, embed, words),
            "detection": detection(explanation, material, judge),
            "fuzzing": fuzzing(explanation, material, judge),
        }
        for (name, explanation), surprise in by_name
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", type=int, default=40)
    parser.add_argument("--out", type=Path, default=cache_folder("model_scores"))
    parser.add_argument("--ship", action="store_true")
    args = parser.parse_args()
    kept = args.out / SCORED
    if args.ship:
        kept_lines.ship(kept)
        return checksums.record()
    done = kept_lines.done(kept, "feature")
    model, sae, reader = load_language_model("stories"), reference_sae("mutual_choice"), load_language_model("smollm2")
    evidence = evidence_of(sae, model, story_tokens(90_000, 128, source="books"))
    found = materials(evidence, sae, model, drawn(evidence, args.features), n_random=10)
    words, prompts = words_of(model), beginnings()
    by_table = [explain_by_statistics(material, words) for material in found]
    by_row = raised(evidence, sae, model, [material.feature for material in found], words)
    passages = [plain(material.shown[len(material.shown) // 2], words) for material in found]
    embed = mean_stream(reader, [*passages, *(explanation.text for explanation in by_table)])
    for i, material in enumerate(tqdm(found)):
        if material.feature in done:
            continue
        other = (i + 1) % len(found)
        told = {ITS_OWN: by_table[i], ANOTHER: by_table[other]}
        row: dict[str, Any] = {"feature": material.feature, "kind": by_table[i].kind}
        row |= {"n_active": len(material.active), "n_silent": len(material.silent)}
        row |= scores_where_active(told, material, reader, embed, words)
        how: dict[str, Any] = {"largest": material.largest, "strength": STRENGTH, "n_tokens": N_TOKENS}
        texts = written(material.feature, sae, model, prompts, **how)
        read = told | {RAISED: by_row[i], RAISED_BY_ANOTHER: by_row[other]}
        for name, score in zip(read, brought_to_mind(list(read.values()), *texts, reader)):
            row.setdefault(name, {"text": read[name].text})["intervention"] = score
        kept_lines.add(kept, row | {"clean": texts[0][0], "steered": texts[1][0]})


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
