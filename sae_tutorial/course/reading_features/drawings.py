"""The drawings of notebook 10."""

from __future__ import annotations

from sae_tutorial.figures.drawings import Drawing
from sae_tutorial.figures.looks import BLUE, GREEN, GREY, ORANGE

SENTENCE = ("It", "was", "more", "than", "she", "could", "bear")
REAL = (0.0, 0.0, 0.1, 1.0, 0.0, 0.0, 0.0)  # invented, like what follows
SAID = (0.0, 0.0, 0.0, 0.9, 0.0, 0.3, 0.0)


def from_text_to_score() -> Drawing:
    """Who sees what: the explainer the evidence, the judge the explanation and new text, the score both."""
    alt = (
        "Text goes through the model and the SAE. Of even rows come passages, shown to the explainer, who writes an "
        "explanation: active on than after more. The judge reads the explanation and passages of odd rows without "
        "their activations, and predicts. The score compares this with the real activations."
    )
    drawing = Drawing(620, 178, alt)
    drawing.box(5, 62, 96, 54, "text, model,\nSAE", GREY)
    drawing.arrow(101, 78, 150, 38).arrow(101, 100, 150, 140)
    drawing.box(150, 12, 112, 52, "passages of\neven rows", BLUE).box(150, 114, 112, 52, "passages of\nodd rows", BLUE)
    drawing.arrow(262, 38, 292, 38).box(292, 12, 88, 52, "explainer", ORANGE).arrow(380, 38, 410, 38)
    drawing.box(410, 12, 150, 52, "active on “than”\nafter “more”", dashed=True)
    drawing.arrow(485, 64, 440, 114)
    drawing.arrow(262, 140, 392, 140, "tokens alone").box(392, 114, 88, 52, "judge", ORANGE)
    drawing.arrow(480, 140, 532, 140).box(532, 114, 80, 52, "score", GREEN)
    return drawing.arrow(206, 114, 540, 112, "real activations", bend=26)


def three_scores() -> Drawing:
    """One passage, and what a judge is asked in simulation, in detection and in fuzzing."""
    alt = (
        "The passage: It was more than she could bear. The real activation is large on than. Simulation asks for an "
        "activation at each token. Detection asks whether the feature is active anywhere. Fuzzing marks tokens and "
        "asks whether these are the right ones: than is right, could is wrong."
    )
    drawing = Drawing(620, 236, alt)
    left, step = 190, 60
    for i, word in enumerate(SENTENCE):
        drawing.text(left + step * i, 70, word)
    rows = {"real activation": (REAL, BLUE, 56), "simulation: how active\nat each token?": (SAID, ORANGE, 124)}
    for name, (values, colour, bottom) in rows.items():
        drawing.text(5, bottom - 14, name, anchor="start", size=12)
        for i, value in enumerate(values):
            tall = max(1.5, 40 * value)
            drawing.box(left + step * i - 14, bottom - tall, 28, tall, "", colour, round=1)
    drawing.text(5, 156, "detection: is it active\nanywhere?", anchor="start", size=12)
    drawing.box(left - 20, 142, 400, 26, "the whole passage: yes, 90%", dashed=True)
    drawing.text(5, 210, "fuzzing: are these\nits words?", anchor="start", size=12)
    drawing.box(left + step * 3 - 24, 186, 48, 24, "than", ORANGE).text(left + step * 3, 224, "yes, 80%", size=12)
    return drawing.box(left + step * 5 - 24, 186, 48, 24, "could", ORANGE).text(
        left + step * 5, 224, "yes, 10%", size=12
    )
