"""Drawings of notebook 04 say in words what they show."""

from sae_tutorial.course.sparse_autoencoders import drawings


def test_an_sae_has_its_parts_and_both_terms_of_the_loss():
    drawing = drawings.sparse_autoencoder()
    words = drawing.svg()
    for part in ("encoder", "decoder", "code z", "sparsity: λ", "squared error"):
        assert part in words
    assert "squared error" in drawing.alt and "λ" in drawing.alt


def test_three_gaps_are_told_apart():
    drawing = drawings.three_gaps()
    for cause in ("shrinkage", "reading", "choice"):
        assert cause in drawing.svg() and cause in drawing.alt
