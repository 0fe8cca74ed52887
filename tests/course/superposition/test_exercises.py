"""Every check of notebook 02: the stub, the solution, and the mistakes that learners make."""

import pytest
import torch
from exercises import right, wrong_and_told

from sae_tutorial.course.superposition import exercises as ex
from sae_tutorial.course.superposition import toy_models as toy


def kept(W):
    return W[:, W.norm(dim=0) > 0.5]


def literal(W, line=0.5):
    columns = W[:, W.norm(dim=0) > line]
    return torch.linalg.matrix_rank(columns) < columns.shape[1]


def below(W, cosine):
    return (kept(W).T @ kept(W)).triu(1).max() < cosine


def step_with(loss, *, zero=True, back=lambda loss: loss.sum(), move=True, result=lambda loss: loss):
    """A training step made of parts, some of them wrong."""

    def step(W, b, x, importance, optimizer):
        value = loss(W, b, x, importance)
        if zero:
            optimizer.zero_grad()
        back(value).backward()
        if move:
            optimizer.step()
        return result(value)

    return step


def read(W, b, x):
    return torch.relu(x @ W.mT @ W + b)


def good(W, b, x, importance):
    return (importance * (read(W, b, x) - x) ** 2).sum(-1).mean(-1)


def dropped_to_zero(W):
    W[:, W.norm(dim=0) <= 0.5] = 0
    return literal(W, -1)


def zeros_not_counted(W):
    W[:, W.norm(dim=0) <= 0.5] = 0
    return torch.linalg.matrix_rank(W) < (W.norm(dim=0) > 0).sum()


def unit_in_place(W):
    norms = W.norm(dim=0)
    W /= norms
    return norms**2 / (W.T @ W).square().sum(1)


def right_in_place(W):
    old, norms = W.clone(), W.norm(dim=0)
    W /= norms
    return norms**2 / (W.T @ old).square().sum(1)


def in_einsum(W, b, x, importance, optimizer):
    h = torch.einsum("imn,ibn->ibm", W, x)
    error = torch.einsum("imn,ibm->ibn", W, h).add(b).clamp_min(0) - x
    losses = torch.einsum("ibn,iqn->ib", error.pow(2), importance).sum(dim=1) / x.shape[1]
    W.grad, b.grad = torch.autograd.grad(losses.sum(), [W, b])
    optimizer.step()
    return losses


@pytest.mark.parametrize(
    ("check", "solution"),
    [
        (ex.check_training_step, ex.solution_training_step),
        (ex.check_training_step, in_einsum),
        (ex.check_superposed, ex.solution_superposed),
        (ex.check_superposed, lambda W: torch.linalg.svdvals(kept(W))[kept(W).shape[1] - 1 :].sum() < 1e-4),
        (ex.check_superposed, zeros_not_counted),
        (ex.check_dimensionality, ex.solution_dimensionality),
        (ex.check_dimensionality, right_in_place),
        (ex.check_dimensionality, lambda W: torch.stack([w @ w / ((w / w.norm()) @ W).pow(2).sum() for w in W.T])),
        (ex.check_phase_boundary, ex.solution_phase_boundary),
        (ex.check_phase_boundary, lambda i: 4 / (2 * (1 + i) + 3) if i >= 1 else 4 * i / (2 + 5 * i)),
    ],
)
def test_a_solution_passes_and_a_stub_is_not_an_error(check, solution):
    right(check, solution)


def test_a_prediction_passes_in_either_case_and_none_is_not_an_error():
    assert ex.check_six("CBA").passed and ex.check_six("cba").passed
    for notation in (["C", "B", "A"], ("c", "b", "a"), " c, b, a ", "C-B-A", "C, B and A"):
        assert ex.check_six(notation).passed, notation
    assert "not answered yet" in ex.check_six(None).message


def test_the_predicted_shapes_are_what_training_finds():
    p = torch.tensor([0.05, 0.15, 0.3])[:, None].expand(3, 6)
    models = toy.train_toy_models(p, torch.ones(1, 6), 2, steps=300, learning_rate=2e-2, restarts=24)
    n_kept = (toy.feature_norms(models.encoder) > 0.5).sum(dim=1).tolist()
    assert [{4: "A", 5: "B", 6: "C"}[count] for count in n_kept] == list(ex.SIX)


def test_the_notebook_can_train_with_the_solution_of_the_first_exercise():
    p, importance = torch.tensor([[0.3, 0.2, 0.5, 0.4]]), torch.tensor([[1.0, 0.9, 0.5, 0.2]])
    how = {"steps": 60, "batch_size": 32, "restarts": 2, "seed": 3}
    own = toy.train_toy_models(p, importance, 2, step=ex.solution_training_step, **how)
    ours = toy.train_toy_models(p, importance, 2, **how)
    assert torch.allclose(own.encoder, ours.encoder, atol=1e-3) and torch.allclose(own.bias, ours.bias, atol=1e-3)
    assert (
        not own.encoder.requires_grad and not own.bias.requires_grad and torch.allclose(own.loss, ours.loss, atol=1e-4)
    )


@pytest.mark.parametrize(
    ("check", "wrong", "says"),
    [
        (ex.check_training_step, step_with(good, result=lambda loss: loss.sum()), "shape ()"),
        (
            ex.check_training_step,
            step_with(lambda W, b, x, i: (i * (x @ W.mT @ W + b - x) ** 2).sum(-1).mean(-1)),
            "ReLU",
        ),
        (ex.check_training_step, step_with(lambda W, b, x, i: good(W, 0 * b, x, i)), "without the bias"),
        (ex.check_training_step, step_with(lambda W, b, x, i: good(W, b, x, torch.ones_like(i))), "importance"),
        (
            ex.check_training_step,
            step_with(lambda W, b, x, i: (i * (read(W, b, x) - x) ** 2).mean((1, 2))),
            "has a sum",
        ),
        (
            ex.check_training_step,
            step_with(lambda W, b, x, i: (i * (read(W, b, x) - x) ** 2).sum((1, 2))),
            "over the batch",
        ),
        (ex.check_training_step, step_with(lambda W, b, x, i: good(W, b, x, i * i)), "importance is squared"),
        (
            ex.check_training_step,
            step_with(lambda W, b, x, i: (read(W, b, x) - x).abs().sum(-1).mean(-1)),
            "the first of two",
        ),
        (
            ex.check_training_step,
            step_with(lambda W, b, x, i: (i * (torch.relu(x @ W.mT @ W) + b - x) ** 2).sum(-1).mean(-1)),
            "bias after the ReLU",
        ),
        (
            ex.check_training_step,
            step_with(lambda W, b, x, i: (i * ((x @ W.mT @ W + b).abs() - x) ** 2).sum(-1).mean(-1)),
            "absolute value",
        ),
        (ex.check_training_step, step_with(lambda W, b, x, i: (W.mT @ (W @ x) + b).sum((1, 2))), "is a *row* of x"),
        (ex.check_training_step, step_with(lambda W, b, x, i: torch.bmm(W, x).sum((1, 2))), "is a *row* of x"),
        (ex.check_training_step, step_with(lambda W, b, x, i: (x @ W).sum((1, 2))), "leads the transpose"),
        (ex.check_training_step, step_with(lambda W, b, x, i: (x @ W.mT @ W.mT).sum((1, 2))), "leads W itself"),
        (ex.check_training_step, step_with(lambda W, b, x, i: (x @ x).sum((1, 2))), "(2, 7, 5) and (2, 7, 5)"),
        (ex.check_training_step, step_with(lambda W, b, x, i: (x @ W.mT + b).sum((1, 2))), "not to h"),
        (ex.check_training_step, step_with(lambda W, b, x, i: ((b + x @ W.mT) @ W).sum((1, 2))), "not to h"),
        (ex.check_training_step, step_with(lambda W, b, x, i: (x @ W.mT - x).sum((1, 2))), "The size of tensor a"),
        (ex.check_training_step, step_with(good, result=lambda loss: loss.sum().item()), "what was there before"),
        (
            ex.check_training_step,
            step_with(lambda W, b, x, i: (i * (read(W, b, x) - x) ** 2).sum(1).mean(1)),
            "the other way round",
        ),
        (
            ex.check_training_step,
            step_with(lambda W, b, x, i: (i * (read(W, b, x) - x).abs()).sum(-1).mean(-1)),
            "the formula squares it",
        ),
        (ex.check_training_step, step_with(good, back=lambda loss: loss), "wants a single number"),
        (ex.check_training_step, step_with(good, back=lambda loss: loss.sum().detach()), "finds no way"),
        (ex.check_training_step, step_with(good, move=False), "what it was before"),
        (ex.check_training_step, step_with(good, back=lambda loss: loss.mean()), "half as far"),
        (ex.check_training_step, step_with(good, zero=False), "the second is not"),
        (ex.check_training_step, step_with(good, back=lambda loss: -loss.sum()), "ends at other weights"),
        (ex.check_training_step, step_with(good, result=lambda loss: None), "returns nothing"),
        (ex.check_six, 6, "three letters"),
        (ex.check_six, "CB", "three letters"),
        (ex.check_six, "DBA", "told apart"),
        (ex.check_six, "ABC", "where they are rarer"),
        (ex.check_six, "CCB", "p = 0.15 and 0.3: with five features, two pairs gave way"),
        (ex.check_six, "BBA", "p = 0.05: collisions are rare enough there to keep more"),
        (ex.check_six, "CCA", "had only just caught up with two pairs"),
        (ex.check_six, "AAA", "At p = 0.15, too, more are kept"),
        (ex.check_six, "BAA", "At p = 0.15, too, more are kept"),
        (ex.check_six, "CAA", "close, but no, at p = 0.15"),
        (ex.check_superposed, lambda W: W.shape[1] > torch.linalg.matrix_rank(W), "three are dropped"),
        (ex.check_superposed, lambda W: torch.linalg.matrix_rank(W) < (W.norm(dim=0) > 0).sum(), "norm 0.04"),
        (ex.check_superposed, lambda W: False, "the digon puts 2 features in 1 dimensions"),
        (ex.check_superposed, lambda W: torch.linalg.det(kept(W).T @ kept(W)) == 0, "use the rank"),
        (ex.check_superposed, lambda W: kept(W).shape[1] > W.shape[0], "Do not count rows"),
        (ex.check_superposed, lambda W: ((kept(W).T @ kept(W)).triu(1).abs() > 0.1).any(), "at 60°"),
        (ex.check_superposed, lambda W: kept(W).shape[1] > torch.linalg.matrix_rank(W), "not of W"),
        (ex.check_superposed, lambda W: ((kept(W).T @ kept(W)).triu(1) < -0.1).any(), "at 120°"),
        (ex.check_superposed, lambda W: ((kept(W).T @ kept(W)).triu(1) < -0.3).any() and below(W, 0.4), "at 120°"),
        (ex.check_superposed, lambda W: (toy.feature_dimensionality(kept(W)) < 0.76).any(), "at 20°"),
        (ex.check_superposed, lambda W: (toy.feature_dimensionality(kept(W)) < 0.99).any(), "at 60°"),
        (ex.check_superposed, lambda W: literal(W) and (kept(W).T @ kept(W)).min() < -0.01, "none of them opposite"),
        (ex.check_superposed, lambda W: literal(W, 0.9), "norm 0.6"),
        (ex.check_superposed, lambda W: literal(W, 0.4), "norm 0.45"),
        (ex.check_superposed, lambda W: literal(W) or kept(W).square().sum() > 3, "norm 1.3"),
        (ex.check_superposed, dropped_to_zero, "a column of zeros"),
        (ex.check_dimensionality, unit_in_place, "W_j keeps its length"),
        (
            ex.check_dimensionality,
            lambda W: W.norm(dim=0) ** 2 / ((W / W.norm(dim=0)).T @ W).sum(1),
            "dot products as they are",
        ),
        (
            ex.check_dimensionality,
            lambda W: W.norm(dim=0) ** 2 / ((W / W.norm(dim=0)).T @ W).abs().sum(1),
            "sizes of the dot products",
        ),
        (
            ex.check_dimensionality,
            lambda W: W.norm(dim=0) ** 2 / ((W / W.norm(dim=0)).T @ W).square().mean(1),
            "average over j",
        ),
        (ex.check_dimensionality, lambda W: ex.solution_dimensionality(W).sum(), "shape ()"),
        (ex.check_dimensionality, lambda W: 1 / ((W / W.norm(dim=0)).T @ W).square().sum(1), "numerator"),
        (ex.check_dimensionality, lambda W: W.norm(dim=0) ** 2 / (W.T @ W).square().sum(1), "*unit* vector"),
        (
            ex.check_dimensionality,
            lambda W: W.norm(dim=0) ** 2 / ((W / W.norm(dim=0)).T @ W).square().sum(0),
            "add up over j",
        ),
        (
            ex.check_dimensionality,
            lambda W: W.norm(dim=0) ** 2 / ((W / W.norm(dim=0)).T @ (W / W.norm(dim=0))).square().sum(1),
            "W_j keeps its length",
        ),
        (ex.check_dimensionality, lambda W: W.norm(dim=0) ** 2 / (toy.interference(W) + 1e-9), "leaves out j = i"),
        (
            ex.check_dimensionality,
            lambda W: W.norm(dim=0) / ((W / W.norm(dim=0)).T @ W).square().sum(1),
            "*squared* norm",
        ),
        (
            ex.check_dimensionality,  # j = i left out, and another mistake: not the diagnosis of one of them
            lambda W: W.norm(dim=0) / (toy.interference(W) + 1e-9),
            "the digon",
        ),
        (ex.check_dimensionality, lambda W: W.norm(dim=0) ** 2, "the digon"),
        (
            ex.check_dimensionality,
            lambda W: W.norm(dim=0) ** 2 / ((W / W.norm(dim=0)).T @ W).sum(1) ** 2,
            "square each dot product",
        ),
        (
            ex.check_dimensionality,
            lambda W: W.norm(dim=0) ** 2 / ((W / W.norm(dim=1, keepdim=True)).T @ W).square().sum(1),
            "norms of rows",
        ),
        (
            ex.check_dimensionality,
            lambda W: W.norm(dim=0) ** 2 / ((W / W.norm()).T @ W).square().sum(1),
            "norm of all of W",
        ),
        (
            ex.check_dimensionality,
            lambda W: W.norm(dim=0) ** 2 / ((W / W.norm(dim=0)).T @ W).square().sum(),
            "one number per i",
        ),
        (ex.check_phase_boundary, lambda i: 2 * min(1, i) / (1 + i), "say the mean"),
        (ex.check_phase_boundary, lambda r: 0.5, "4/7"),
        (ex.check_phase_boundary, lambda r: 4 * r / (2 * (1 + r) + 3 * r), "feature 1 that gets dropped"),
    ],
)
def test_mistakes_are_named(check, wrong, says):
    wrong_and_told(check, wrong, says)


def test_an_exception_of_the_learner_is_shown():
    assert "ZeroDivisionError" in ex.check_phase_boundary(lambda r: 1 / 0).message


def in_columns(W, b, x, importance, optimizer):
    """Samples as columns, as the formulas have them."""
    x_read = torch.relu(W.mT @ (W @ x.mT) + b.mT)
    loss = (importance.mT * (x.mT - x_read) ** 2).sum(1).mean(1)
    optimizer.zero_grad()
    loss.backward(torch.ones_like(loss))
    optimizer.step()
    return loss.tolist()


def test_samples_as_columns_are_right_as_well():
    right(ex.check_training_step, in_columns)
