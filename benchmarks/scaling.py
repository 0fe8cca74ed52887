"""How do selection and a whole training step grow with F, B and k?

    python benchmarks/scaling.py      results/scaling.json and results/scaling.png (3 minutes)

From one point, each of the three is varied alone. Everything takes turns within one run. The slope is the exponent p of
milliseconds ∝ sizeᵖ, fitted to all sizes: 1 means twice as long for twice as many.
"""

from __future__ import annotations

from collections.abc import Callable

import common
import plotly.graph_objects as go
import torch
from allocation import a_capacity, a_table, flat_topk
from plotly.subplots import make_subplots

from sae_tutorial import SAEConfig, SparseAutoencoder, allocation
from sae_tutorial.figures import style
from sae_tutorial.training.settings import TrainSettings
from sae_tutorial.training.start import start_
from sae_tutorial.training.step import Trainee

RULES = ("mutual_choice", "token_choice", "feature_choice")
# The point that stays (d, F, B, k), and how far each is moved.
POINTS = {
    "quick": ((16, 256, 64, 4), (0.5, 2)),
    "cpu": ((256, 8192, 1024, 32), (0.25, 0.5, 2, 4)),
    "cuda": ((768, 32768, 8192, 64), (0.25, 0.5, 2, 4)),
}
NAMES = {"F": "features F", "B": "tokens B", "k": "mean L0, k"}


def contenders(shape: tuple[int, int, int, int], device: str) -> dict[str, Callable[[], object]]:
    """Selections on a table, then whole steps."""
    d_in, n_features, n_tokens, k = shape
    z, capacity = a_table(n_tokens, n_features, device), a_capacity(n_features, n_tokens, k, device)
    made: dict[str, Callable[[], object]] = {
        "select: flat topk + scatter": lambda: flat_topk(z, k * n_tokens),
        "select: mutual_choice": lambda: allocation.mutual_choice(z, k * n_tokens),
        "select: token_choice": lambda: allocation.token_choice(z, k),
        "select: feature_choice": lambda: allocation.feature_choice(z, capacity),
    }
    u = torch.randn(n_tokens, d_in, generator=torch.Generator().manual_seed(0))
    for rule in RULES:
        made[f"step: {rule}"] = a_step(rule, shape, u, device)
    return made


def a_step(rule: str, shape: tuple[int, int, int, int], u: torch.Tensor, device: str) -> Callable[[], object]:
    """A training step that can be repeated. Feature Choice's look at the demand, in one step of ten, is left out."""
    d_in, n_features, n_tokens, k = shape
    sae = start_(SparseAutoencoder(SAEConfig(d_in, n_features, rule, k)), u[:512]).to(device)
    dtype = "bfloat16" if device == "cuda" else "float32"
    trainee = Trainee(sae, TrainSettings(100_000, n_tokens, lr=1e-6, encoder_dtype=dtype, dead_after=10**9), 1.0)
    batch = u.to(device)

    def step() -> None:
        trainee.step = 2001
        trainee.advance(batch, batch)

    return step


def varied(base: tuple[int, int, int, int], factors: tuple[float, ...]) -> dict[str, list[tuple[int, int, int, int]]]:
    """For F, B and k the shapes in which it alone changes, smallest first."""
    shapes = {}
    for i, name in enumerate("FBk", start=1):
        moved = [(*base[:i], int(base[i] * factor), *base[i + 1 :]) for factor in sorted((1, *factors))]
        shapes[name] = moved
    return shapes


def figure(medians: dict[str, dict[str, list[float]]], sizes: dict[str, list[int]], title: str) -> go.Figure:
    """Log-log, one panel for each of F, B and k, one line for each contender."""
    fig = make_subplots(1, len(sizes), shared_yaxes=True, horizontal_spacing=0.03)
    names = list(medians["F"])
    for column, (varying, x) in enumerate(sizes.items(), start=1):
        for i, name in enumerate(names):
            look = {"color": style.PALETTE[i % len(style.PALETTE)], "dash": "solid" if "step" in name else "dot"}
            line = go.Scatter(x=x, y=medians[varying][name], name=name, line=look, mode="lines+markers")
            fig.add_trace(line.update(showlegend=column == 1), row=1, col=column)
        ticks = {"tickmode": "array", "tickvals": x, "ticktext": [f"{value:,}" for value in x]}
        fig.update_xaxes(type="log", title_text=NAMES[varying], row=1, col=column, **ticks)
    fig.update_yaxes(type="log", dtick=1)
    fig.update_layout(width=1000, height=460)
    return style.finish(fig, title, NAMES["F"], "milliseconds")


def main() -> None:
    args = common.parser(__doc__).parse_args()
    device = common.device_of(args)
    described = common.machine(device)
    base, factors = POINTS["quick" if args.quick else device]
    shapes = varied(base, factors)
    measured: dict[tuple[int, ...], dict[str, list[float]]] = {}
    for shape in sorted({one for some in shapes.values() for one in some}):
        runs = {name: common.timed(run, device) for name, run in contenders(shape, device).items()}
        for run in runs.values():
            run()  # warm up
        measured[shape] = common.take_turns(runs, 2 if args.quick else args.rounds, common.at(shape))

    sizes = {name: [shape[1 + i] for shape in shapes[name]] for i, name in enumerate("FBk")}
    names = list(measured[base])
    medians = {
        varying: {name: [common.spread(measured[shape][name])["median"] for shape in some] for name in names}
        for varying, some in shapes.items()
    }
    slopes = {
        name: {varying: round(common.slope(sizes[varying], medians[varying][name]), 2) for varying in sizes}
        for name in names
    }
    rows = []
    for name in names:
        of = common.spread(measured[base][name])
        powers = [f"{slopes[name][varying]:.2f}" for varying in sizes]
        rows.append([name, f"{of['median']:.1f}", f"{of['low']:.1f} to {of['high']:.1f}", *powers])
    columns = ["what", "ms, median", "ms, all rounds", *(f"slope in {name}" for name in sizes)]
    tables = [common.table(f"How cost grows from {common.at(base)}", columns, rows)]
    if not args.quick:
        steps = [slopes[f"step: {rule}"] for rule in RULES]
        grow = {varying: max(one[varying] for one in steps) for varying in sizes}
        title = f"A step grows as F^{grow['F']:.2f}, B^{grow['B']:.2f} and k^{grow['k']:.2f} at most"
        save(figure(medians, sizes, title), "scaling" if device == "cpu" else f"scaling-{device}")
    raw = {common.at(shape): taken for shape, taken in measured.items()}
    question = "how selection and a whole training step grow with features, tokens and L0"
    settings = {"rounds": args.rounds, "slopes": slopes}
    common.finish(args, "scaling", question, described, raw=raw, settings=settings, tables=tables)


def save(fig: go.Figure, name: str) -> None:
    """As a picture, where one can be drawn."""
    try:
        fig.write_image(common.RESULTS / f"{name}.png", scale=1.5)
    except Exception as error:  # kaleido without a browser: the numbers are there all the same
        print(f"no picture: {str(error).splitlines()[0]} (kaleido needs a Chrome or Chromium)")


if __name__ == "__main__":
    main()
