import pytest
import torch

from sae_tutorial.course.transformers import exercises

CHECKS = [
    (exercises.check_count_parameters, exercises.solution_count_parameters, lambda b, w, v, c: None),
    (exercises.check_head_writes, exercises.solution_head_writes, lambda z, w: None),
    (exercises.check_overlap, exercises.solution_overlap, lambda a, b: None),
    (exercises.check_nucleus_size, exercises.solution_nucleus_size, lambda p, share: None),
    (exercises.check_previous_token_score, exercises.solution_previous_token_score, lambda pattern: None),
]


@pytest.mark.parametrize(("check", "solution", "stub"), CHECKS)
def test_stub_and_solution(check, solution, stub):
    assert "not answered yet" in check(stub).message
    assert "not answered yet" in check(None).message
    assert check(solution), check(solution).message


def count(blocks, width, vocabulary, context, *, tied=True, last=True, biases=True, norms=True, positions=True):
    block = 12 * width**2 + (9 * width if biases else 0) + (4 * width if norms else 0)
    return (
        (vocabulary + (context if positions else 0)) * width
        + blocks * block
        + (2 * width if last else 0)
        + (0 if tied else vocabulary * width)
    )


@pytest.mark.parametrize(
    ("missing", "says"),
    [
        (["tied"], "count it once"),
        (["last"], "LayerNorm after the last block"),
        (["biases"], "the biases"),
        (["norms"], "two LayerNorms"),
        (["positions"], "a table of their own"),
        (["biases", "norms"], "biases and LayerNorms in the blocks"),
        (["biases", "norms", "last"], "all biases and LayerNorms are missing"),
    ],
)
def test_count_parameters_names_what_is_missing(missing, says):
    verdict = exercises.check_count_parameters(lambda *sizes: count(*sizes, **dict.fromkeys(missing, False)))
    assert not verdict and says in verdict.message


def test_the_hint_does_not_give_the_count_away():
    wrong = [exercises.check_count_parameters(lambda *sizes: 0).message for _ in range(2)]
    hint = wrong[1].removeprefix(wrong[0])
    assert "Hint" in hint and "12" not in hint and "8 M²" not in hint


@pytest.mark.parametrize(
    ("mistake", "says"),
    [
        (lambda z, w: torch.einsum("nlhd,hdm->nlm", z, w), "summed already"),
        (lambda z, w: torch.einsum("nlhd,hdm->nhlm", z, w), "the shape is"),
        (lambda z, w: 2 * torch.einsum("nlhd,hdm->nlhm", z, w), "values are not"),
        (lambda z, w: z @ w, "RuntimeError"),
    ],
)
def test_head_writes_mistakes(mistake, says):
    verdict = exercises.check_head_writes(mistake)
    assert not verdict and says in verdict.message


def bases(a, b):
    return torch.linalg.qr(a.T).Q, torch.linalg.qr(b.T).Q


def with_sum(a, b):
    q, r = bases(a, b)
    return (q.T @ r).square().sum()


def with_mean_of_cosines(a, b):
    return torch.linalg.svdvals(bases(a, b)[0].T @ bases(a, b)[1]).mean() ** 2


def without_squares(a, b):
    q, r = bases(a, b)
    return (q.T @ r).abs().sum() / len(a)


def with_cosines(a, b):
    return torch.linalg.svdvals(bases(a, b)[0].T @ bases(a, b)[1]).mean()


def of_one_basis(a, b):
    return (a @ b.T).square().sum() / (a @ a.T).square().sum().sqrt() / (b @ b.T).square().sum().sqrt()


def without_bases(a, b):
    unit = torch.nn.functional.normalize
    return (unit(a, dim=-1) @ unit(b, dim=-1).T).square().sum() / len(a)


@pytest.mark.parametrize(
    ("mistake", "says"),
    [
        (with_sum, "divide by D"),
        (with_mean_of_cosines, "before the mean"),
        (without_squares, "the cosines themselves"),
        (with_cosines, "the cosines themselves"),
        (of_one_basis, "make the rows orthonormal first"),
        (without_bases, "not at right angles to each other; make them orthonormal first"),
    ],
)
def test_overlap_mistakes(mistake, says):
    verdict = exercises.check_overlap(mistake)
    assert not verdict and says in verdict.message


@pytest.mark.parametrize(
    ("mistake", "says"),
    [
        (lambda p, share: int((p.sort(descending=True).values.cumsum(-1) < share).sum()), "keeps 2"),
        (lambda p, share: int((p.cumsum(-1) - p < share).sum()), "sort them first"),
        (lambda p, share: len(p), "keeps 2"),
    ],
)
def test_nucleus_size_mistakes(mistake, says):
    verdict = exercises.check_nucleus_size(mistake)
    assert not verdict and says in verdict.message


@pytest.mark.parametrize(
    ("mistake", "says"),
    [
        (lambda p: p.diagonal(dim1=-2, dim2=-1).mean(-1), "to itself"),
        (lambda p: p.diagonal(offset=1, dim1=-2, dim2=-1).mean(-1), "the future"),
        (lambda p: p.diagonal(offset=-1, dim1=-2, dim2=-1).sum(-1) / p.shape[-1], "nothing before it"),
        (lambda p: p.mean(), "3 numbers"),
    ],
)
def test_previous_token_score_mistakes(mistake, says):
    verdict = exercises.check_previous_token_score(mistake)
    assert not verdict and says in verdict.message
