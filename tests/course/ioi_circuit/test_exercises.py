import pytest
import torch

from sae_tutorial.course.ioi_circuit import exercises

CHECKS = [
    (exercises.check_swapped, exercises.solution_swapped, lambda sentence, io, giver: None),
    (exercises.check_direct, exercises.solution_direct, lambda *parts: None),
    (exercises.check_patch, exercises.solution_patch, lambda acts, new, where: None),
    (exercises.check_faithfulness, exercises.solution_faithfulness, lambda circuit, whole, nothing: None),
]


@pytest.mark.parametrize(("check", "solution", "stub"), CHECKS)
def test_stub_and_solution(check, solution, stub):
    assert "not answered yet" in check(stub).message
    assert "not answered yet" in check(None).message
    assert check(solution), check(solution).message


@pytest.mark.parametrize(
    ("mistake", "says"),
    [
        (lambda text, io, giver: text, "Nothing has changed"),
        (lambda text, io, giver: text.replace(giver, io), "lost John"),
        (
            lambda text, io, giver: text.replace(f", {giver} ", f", {io} "),
            "Nothing has changed",
        ),
        (
            lambda text, io, giver: text.replace(io, "#").replace(giver, io).replace("#", giver),
            "it should be",
        ),
    ],
)
def test_swapped_mistakes(mistake, says):
    verdict = exercises.check_swapped(mistake)
    assert not verdict and says in verdict.message


@pytest.mark.parametrize(
    ("mistake", "says"),
    [
        (lambda z, o, s, u, r, w: z @ o @ (u[:, r] - u[:, w]), "divides everything by its scale"),
        (lambda z, o, s, u, r, w: z @ o @ (u[:, w] - u[:, r]) / s, "right minus wrong"),
        (lambda z, o, s, u, r, w: z @ o @ u[:, r] / s, "right name alone"),
        (lambda z, o, s, u, r, w: z @ u, "RuntimeError"),
        (lambda z, o, s, u, r, w: 0.0, "yours is 0.0000"),
    ],
)
def test_direct_mistakes(mistake, says):
    verdict = exercises.check_direct(mistake)
    assert not verdict and says in verdict.message


def in_place(acts, new, where):
    rows = torch.arange(len(acts))
    acts[rows, where] = new[rows, where]
    return acts


def everybody(acts, new, where):
    acts = acts.clone()
    acts[:, where] = new[:, where]
    return acts


def only_the_new(acts, new, where):
    out, rows = torch.zeros_like(acts), torch.arange(len(acts))
    out[rows, where] = new[rows, where]
    return out


def added(acts, new, where):
    out, rows = acts.clone(), torch.arange(len(acts))
    out[rows, where] += new[rows, where]
    return out


@pytest.mark.parametrize(
    ("mistake", "says"),
    [
        (in_place, "clone it first"),
        (everybody, "Pair them up"),
        (lambda acts, new, where: new, "all three positions"),
        (lambda acts, new, where: acts, "wrong places"),
        (only_the_new, "other places must keep acts"),
        (added, "do not add"),
        (lambda acts, new, where: acts[0], "shape"),
        (lambda acts, new, where: 3, "int"),
    ],
)
def test_patch_mistakes(mistake, says):
    verdict = exercises.check_patch(mistake)
    assert not verdict and says in verdict.message


@pytest.mark.parametrize(("measured", "word"), [(2.0, "up"), (-2.0, "down"), (0.1, "stays")])
def test_prediction(measured, word):
    assert exercises.solution_prediction(measured) == word
    assert exercises.check_prediction(word, measured)
    assert "not answered yet" in exercises.check_prediction(None, measured).message
    wrong = {"up", "down", "stays"} - {word}
    assert all(f"{measured:+.2f}" in exercises.check_prediction(other, measured).message for other in wrong)
    assert "Answer" in exercises.check_prediction("sideways", measured).message


def test_prediction_of_nothing():
    with pytest.raises(ValueError, match="nan"):
        exercises.check_prediction("down", float("nan"))


def test_faithfulness_mistakes():
    assert "begin" in exercises.check_faithfulness(lambda circuit, whole, nothing: circuit / whole).message
    assert "yours says" in exercises.check_faithfulness(lambda circuit, whole, nothing: 1.0).message
