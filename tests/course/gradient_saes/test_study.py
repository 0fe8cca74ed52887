"""What notebook 12 asks, on texts short enough to ask it directly, and on gradients that are known."""

import re

import pytest
import torch

from sae_tutorial import SparseCodes, reference_sae, story_tokens
from sae_tutorial.course.gradient_saes import drawings, study, viewer
from sae_tutorial.evaluation.fidelity import evaluate


@pytest.fixture(scope="module")
def read(model):
    sae = reference_sae("token_choice")
    text = study.Text(model, str(sae.hook_name), story_tokens(4 * 256, 256, seed=0)[:2, :24])
    return sae, text, sae.encode(text.x)


def test_a_removal_is_the_models_answer_to_it(read, model):
    sae, text, codes = read
    found = study.remove(text, sae, codes, 5)
    for match, kl in zip(found.match.tolist(), found.kl):
        row, column = divmod(int(codes.tokens[match]), text.tokens.shape[1])
        written = float(codes.values[match].detach()) * sae.W_dec[codes.features[match]] * sae.scale

        def without(acts, hook, column=column, written=written):
            acts = acts.clone()
            acts[0, column] -= written
            return acts

        tokens = text.tokens[row : row + 1]
        clean = model(tokens, return_type="logits")[0].log_softmax(-1)
        with model.hooks(fwd_hooks=[(text.hook_name, without)]):
            other = model(tokens, return_type="logits")[0].log_softmax(-1)
        expected = (clean.exp() * (clean - other)).sum(-1)[:-1].sum().detach()
        assert float(kl) == pytest.approx(float(expected), rel=0.02, abs=1e-4)


def test_what_is_left_is_what_evaluate_says(read, model):
    sae, text, codes = read
    found, rows = study.what_is_left(text, sae, codes), text.tokens
    ours = float(found["kl"].sum()) / (len(rows) * (rows.shape[1] - 2))
    theirs = evaluate(
        sae, model, rows[:, :-1], text.hook_name, max_norm=None, progress=False
    )  # which also reads each last token
    assert ours == pytest.approx(theirs.kl, rel=0.01)
    mean, low, high = study.per_token(text, found["kl"])
    assert low <= mean <= high and mean == pytest.approx(ours)


def test_drawn_answers_stand_where_the_tokens_stood(read):
    _, text, _ = read
    answers = text.sampled_answers(0)
    assert answers.shape == text.tokens.shape and torch.equal(answers[:, 0], text.tokens[:, 0])
    assert torch.equal(answers, text.sampled_answers(0)) and not torch.equal(answers, text.sampled_answers(1))
    likely = text.log_probs[:, :-1].gather(2, answers[:, 1:, None]).mean()
    assert likely > text.log_probs.mean() + 3


def test_gradients_of_other_answers_are_those_of_their_loss(read, model):
    sae, text, _ = read
    answers = text.sampled_answers(1)
    found = text.gradients(answers).view(*text.tokens.shape, -1)
    addend = torch.zeros(1, text.tokens.shape[1], found.shape[-1], requires_grad=True)
    with torch.enable_grad(), model.hooks(fwd_hooks=[(text.hook_name, lambda acts, hook: acts + addend)]):
        logits = model(text.tokens[:1], return_type="logits")
        loss = torch.nn.functional.cross_entropy(logits[0, :-1].float(), answers[0, 1:], reduction="sum")
        expected = torch.autograd.grad(loss, addend)[0][0]
    torch.testing.assert_close(found[0], expected, rtol=1e-2, atol=1e-3)


def test_units_and_agreement_and_kept():
    truth = torch.arange(20.0)
    found = study.agreement({"same": truth.exp(), "turned": -truth}, truth)
    assert found["same"][0] == pytest.approx(1) and found["turned"][0] == pytest.approx(-1)
    codes = SparseCodes.from_dense(torch.tensor([[3.0, 2.0, 1.0], [0.0, 1.0, 4.0]]))
    kept = study.kept(codes, torch.tensor([1.0, 5.0, 2.0, 9.0, 1.0]), 1)
    assert torch.equal(kept.to_dense(), torch.tensor([[0.0, 2.0, 0.0], [0.0, 1.0, 0.0]]))


def test_sensitivity_by_many_answers_settles(read):
    sae, text, codes = read
    few, many = study.mean_sensitivity(text, codes, sae.W_dec, (1, 8)).values()
    assert few.shape == many.shape == (len(codes),) and (many >= 0).all()
    rows = text.is_read[codes.tokens]
    assert many[rows].std() / many[rows].mean() < few[rows].std() / few[rows].mean()


def test_the_viewer_exchanges_nothing_without_beta(read, model):
    sae, text, _ = read
    one = study.Text(model, text.hook_name, text.tokens[:1])
    _, _, by_z, by_score = viewer.by_either(*viewer.tables(one, sae), sae.config.k, 5, 0.0)
    assert torch.equal(by_z, by_score) and int(by_z.sum()) == sae.config.k
    box = viewer.choice_viewer(sae, model)
    _, token, beta, table = box.children
    beta.value = 8.0
    assert "enters" in table.value and "leaves" in table.value
    box.children[0].value = ""
    assert "next token" in table.value
    box.children[0].value = "The <b>dog</b> ran to a big red ball."
    assert "<b>dog" not in table.value and token.max > 5


def test_the_drawing_says_in_words_what_its_table_has():
    drawing = drawings.two_ways_to_choose()
    assert re.findall(r">(\d\.\d)<", drawing.svg()) == ["2.0", "0.2", "2.4", "1.5", "1.4", "3.6"]
    assert re.findall(r"\d\.\d", drawing.alt) == ["2.0", "1.5", "0.2", "1.4", "2.4", "3.6"]
