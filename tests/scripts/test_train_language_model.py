"""The training script on a thimble of text: what a batch holds, and that an interrupted run goes on unchanged."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
import train_language_model as script

STORY = 6 * (
    "Once there was a {0} who lived by the {1}. "
    "Every day the {0} walked to the {1} and sang. Nobody in the {1} minded.\n"
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    words = ["fox", "hen", "miller", "king", "river", "wood", "hill", "sea"]
    for kind in ("books", "tales"):
        (folder / kind).mkdir()
        stories = [STORY.format(a, b) for a in words for b in words if a != b]
        (folder / kind / "a.txt").write_text(script.END.join(stories))
    return folder


def run(monkeypatch: pytest.MonkeyPatch, data: Path, out: Path, steps: int, until: int) -> dict:
    """Train towards `steps`, but stop (as a crash would) after the checkpoint at `until`."""
    flags = f"x --data {data}/books --data {data}/tales --out {out} --steps {steps}"
    flags += " --save-every 1 --layers 1 --vocab-size 800"
    monkeypatch.setattr(sys, "argv", flags.split())
    monkeypatch.setattr(script, "MIXTURES", {"form": (2, 1, 2), "settle": (2, 1, 2)})
    monkeypatch.setattr(torch, "compile", lambda f, **_: f)
    monkeypatch.setattr(
        script, "tqdm", lambda steps, **_: Bar(steps if not isinstance(steps, range) else steps[: until - steps.start])
    )
    script.main()
    return torch.load(out / "checkpoint.pt", weights_only=False)


class Bar(list):
    def set_postfix(self, **_: str) -> None: ...


def test_resumed_run_equals_unbroken_run(monkeypatch: pytest.MonkeyPatch, data: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    unbroken = run(monkeypatch, data, tmp_path / "a", steps=4, until=4)
    run(monkeypatch, data, tmp_path / "b", steps=4, until=2)
    resumed = run(monkeypatch, data, tmp_path / "b", steps=4, until=4)
    assert resumed["step"] == unbroken["step"] == 4
    for name, tensor in unbroken["model"].items():
        assert torch.equal(tensor, resumed["model"][name]), name


def test_rows_start_with_the_end_mark_and_repeat_what_they_should(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(monkeypatch, data, tmp_path / "c", steps=1, until=1)
    args = type("Args", (), {"out": tmp_path / "c"})
    tokenizer, streams, fillers = script.prepare(args)  # type: ignore[arg-type]
    batches = script.Batches(tokenizer, streams, fillers, seed=0)
    long, short = batches(7, "form")
    assert long.shape == (3, 256) and short.shape == (2, 64)
    assert (long[:, 0] == batches.end).all() and (short[:, 0] == batches.end).all()
    again, _ = batches(7, "form")
    assert torch.equal(long, again)
    other, _ = batches(8, "form")
    assert not torch.equal(long, other)
    generated = torch.cat([long[-1:, 1], short[:, 1]])
    assert (generated == batches.newline).all() and (long[:-1, 1] != batches.newline).all()
    repeated = long[-1, 2:]
    assert any(torch.equal(repeated[:-n], repeated[n:]) for n in range(8, 129))
    assert all(len(tokenizer.encode(" " + name).ids) == 1 for name in script.circuit_sentences.NAMES)


def test_learning_rate_warms_up_stays_and_falls() -> None:
    rates = [script.learning_rate(step, 1000, 0.4) for step in range(1000)]
    assert rates[0] == pytest.approx(0.01) and rates[99:600] == [1.0] * 501
    assert rates[800] == pytest.approx(0.5) and rates[-1] < 0.01


@pytest.mark.parametrize("shape", [(16, 16), (16, 48), (16, 64), (64, 16)])
def test_orthogonal_has_singular_values_near_one(shape: tuple[int, int]) -> None:
    matrix = script.orthogonal(torch.randn(shape, generator=torch.Generator().manual_seed(0)))
    parts = matrix.chunk(3, dim=1) if shape == (16, 48) else [matrix]
    for part in parts:
        assert ((torch.linalg.svdvals(part) > 0.4) & (torch.linalg.svdvals(part) < 1.4)).all()


def test_mean_weights_is_the_mean(tmp_path: Path) -> None:
    for name, value in (("end-000001.pt", 1.0), ("end-000002.pt", 4.0)):
        torch.save({"model": {"w": torch.full((2,), value)}}, tmp_path / name)
    mean = script.mean_weights(sorted(tmp_path.iterdir()))
    assert torch.equal(mean["w"], torch.full((2,), 2.5))
