"""SmolLM2-135M-Instruct as explainer and as judge: how far does so small a model get, and how much depends on it?

    python scripts/explain_by_smollm2.py           one line for each feature, in the cache; goes on where it stopped
    python scripts/explain_by_smollm2.py --ship    puts them into the package, for notebook 10

The features are drawn from the embedded model's Mutual Choice SAE, among those with enough matches; the text is story
books. Each is explained by statistics and by the model. The model then judges three explanations: both of these, and
that of the next feature by statistics, which is a control: a judge that reads what it is told should be at chance.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import kept_lines
import torch
from tqdm.auto import tqdm

from sae_tutorial import load_language_model, reference_sae, story_tokens
from sae_tutorial.activations.files import cache_folder
from sae_tutorial.course.reading_features.study import judged, material_of_drawn
from sae_tutorial.course.results import EXPLAINED
from sae_tutorial.evaluation.chat import LocalChat
from sae_tutorial.evaluation.chat_judge import ChatJudge, explain_by_chat
from sae_tutorial.evaluation.explanations import StatisticsJudge, explain_by_statistics
from sae_tutorial.figures.feature_report import words_of

N_SIMULATED = 2  # passages of each kind that the model simulates, token by token: that takes it longest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", type=int, default=30)
    parser.add_argument("--out", type=Path, default=cache_folder("explanations"))
    parser.add_argument("--ship", action="store_true")
    args = parser.parse_args()
    kept = args.out / EXPLAINED
    if args.ship:
        return kept_lines.ship(kept)
    done = kept_lines.done(kept, "feature")
    model, sae = load_language_model("stories"), reference_sae("mutual_choice")
    materials = material_of_drawn(sae, model, story_tokens(90_000, 128, source="books"), args.features, n_random=10)
    words = words_of(model)
    by_table = [explain_by_statistics(material, words) for material in materials]
    chat = LocalChat()
    judge = ChatJudge(chat, words)
    with torch.no_grad():
        for i, material in enumerate(tqdm(materials)):
            if material.feature in done:
                continue
            told = {
                "statistics": by_table[i],
                "SmolLM2": explain_by_chat(chat, material, words),
                "another feature": by_table[(i + 1) % len(by_table)],
            }
            row = {"feature": material.feature, "kind": by_table[i].kind}
            row["by itself"] = judged(by_table[i], material, StatisticsJudge())
            for name, explanation in told.items():
                simulated = N_SIMULATED if name == "statistics" else 0
                row[name] = {"text": explanation.text} | judged(explanation, material, judge, simulated)
            kept_lines.add(kept, row)


if __name__ == "__main__":
    main()
