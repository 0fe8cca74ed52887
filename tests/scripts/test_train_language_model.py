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


def run(monkeypatch: pytest.MonkeyPatch, data: Path, out: Path, steps: int, until: int, flags: str = "") -> dict:
    """Train towards `steps`, but stop (as a crash would) after the checkpoint at `until`."""
    flags = f"x --data {data}/books --data {data}/tales --out {out} --steps {steps}" + flags
    flags += " --save-every 1 --layers 1 --vocab-size 800"
    monkeypatch.setattr(sys, "argv", flags.split())
    monkeypatch.setattr(script, "MIXTURES", {"form": (2, 1, 2), "settle": (2, 1, 2)})
    monkeypatch.setattr(torch, "compile", lambda f, **_: f)
    monkeypatch.setattr(
        script, "tqdm", lambda steps, **_: Bar(steps if not isinstance(steps, range) else steps[: until - steps.start])
    )
    script.main()
    return torch.load(out / "checkpoint.pt", weights_only=True)


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
    repeated = long[-1, 2:]
    assert any(torch.equal(repeated[:-n], repeated[n:]) for n in range(8, 129))
    assert all(len(tokenizer.encode(" " + name).ids) == 1 for name in script.circuit_sentences.NAMES)


def test_marked_rows_are_stories_from_end_to_end(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands after the mark is a piece of the text that was read; nothing else is ever marked."""
    run(monkeypatch, data, tmp_path / "d", steps=1, until=1)
    args = type("Args", (), {"out": tmp_path / "d"})
    batches = script.Batches(*script.prepare(args), seed=0)  # type: ignore[arg-type]
    text = {kind: stream.tolist() for kind, stream in batches.streams.items()}
    seen = 0
    for step in range(20):
        long, short = batches(step, "form")
        assert not (short == batches.mark).any() and not (long[-1] == batches.mark).any()  # generated, repeated
        for row in long[:-1].tolist():
            if row[1] != batches.mark:
                continue
            seen += 1
            story = [token for token in row[1:] if token != batches.mark]
            assert row.count(batches.mark) == row.count(batches.end)
            n = len(story)
            assert any(
                story == s[at : at + n] for s in text.values() for at in range(len(s) - n + 1) if s[at] == story[0]
            )
    assert seen > 10
    starts = {tuple(row[:2].tolist()) for step in range(20) for row in batches(step, "form")[1]}
    assert {second == batches.newline for _, second in starts} == {True, False}


def test_goes_on_from_a_trained_model(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(monkeypatch, data, tmp_path / "e", steps=2, until=2)
    flags = f" --start {tmp_path / 'e' / 'model'}"
    monkeypatch.setattr(script, "learning_rate", lambda *_: 0.0)  # nothing moves, so the weights are those of before
    second = run(monkeypatch, data, tmp_path / "f", steps=1, until=1, flags=flags)
    for name, weight in first["model"].items():
        torch.testing.assert_close(second["model"][name], weight, atol=2e-3, rtol=2e-3)  # it was exported in fp16


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
