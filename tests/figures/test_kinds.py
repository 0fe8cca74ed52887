"""Each kind of figure draws what it is given, where it belongs."""

import math

import numpy as np
import pytest
import torch
from drawing import cells, drawn, plain, says_nothing_is_there, written

from sae_tutorial.figures import kinds
from sae_tutorial.figures.kinds import Curve
from sae_tutorial.figures.looks import LOOKS, look
from sae_tutorial.figures.text import width_of

NAN = math.nan
ONE = {"Token Choice": Curve([1, 2, 3], torch.tensor([4.0, 5.0, NAN])), "b": Curve(np.array([1, 2]), [0.5, 0.25])}


# ---------------------------------------------------------------------- lines and dots


def test_lines_draw_y_over_x_in_the_looks_of_their_names():
    fig = kinds.lines(ONE, "title", "x (steps)", "y (nats)", hover="%{x}: %{y}")
    assert drawn(fig) == {"Token Choice": ([1, 2, 3], [4, 5, None]), "b": ([1, 2], [0.5, 0.25])}
    first, second = fig.data
    assert (first.line.color, first.line.dash, first.marker.symbol) == look("Token Choice")
    assert second.line.color != first.line.color
    assert {trace.mode for trace in fig.data} == {"lines+markers"} and fig.layout.showlegend
    assert first.hovertemplate == "%{x}: %{y}<extra>Token Choice</extra>"
    assert (fig.layout.title.text, fig.layout.xaxis.title.text, fig.layout.yaxis.title.text) == (
        "title",
        "x (steps)",
        "y (nats)",
    )


def test_a_band_surrounds_its_line():
    fig = kinds.lines({"a": Curve([1, 2], [5, 6], [4, 5], [7, 9])}, "t", "x", "y")
    band, line = fig.data
    assert plain(band.x) == [1, 2, 2, 1] and plain(band.y) == [7, 9, 5, 4] and band.fill == "toself"
    assert plain(line.y) == [5, 6] and not band.showlegend


def test_whiskers_stand_on_the_points():
    fig = kinds.lines({"a": Curve([1, 2], [5, 6], [4, NAN], [7, NAN])}, "t", "x", "y", whiskers=True)
    (line,) = fig.data
    assert plain(line.error_y.array) == [2, 0] and plain(line.error_y.arrayminus) == [1, 0]


def test_panels_hold_their_own_curves_and_share_a_legend():
    fig = kinds.lines({"left": ONE, "right": {"b": Curve([9], [8])}}, "t", "x", ["y", "z"], level={"half": 0.5})
    assert drawn(fig)["b 2"] == ([9], [8])
    assert [trace.xaxis for trace in fig.data] == ["x", "x", "x2"]
    assert [bool(trace.showlegend) for trace in fig.data] == [True, True, False]
    assert fig.data[1].line.color == fig.data[2].line.color
    assert written(fig) == ["left", "right", "half"] and [s.y0 for s in fig.layout.shapes] == [0.5, 0.5]


def test_logarithmic_axes_marks_and_hidden_names():
    curves = {"a": Curve([1, 10], [1, 1000]), "_b": Curve([1], [1])}
    fig = kinds.lines(curves, "t", "x", "y", log="xy", ticks=[1, 3, 10], mark={"here": 3})
    assert fig.layout.xaxis.type == fig.layout.yaxis.type == "log" and plain(fig.layout.xaxis.tickvals) == [1, 3, 10]
    assert fig.layout.shapes[0].x0 == 3 and fig.layout.annotations[0].x == pytest.approx(math.log10(3))
    assert [bool(trace.showlegend) for trace in fig.data] == [True, False] and not fig.layout.showlegend
    assert fig.data[1].hovertemplate.endswith("<extra>b</extra>")


def test_curves_may_have_a_look_and_a_mode_of_their_own():
    own = Curve([1], [2], look=LOOKS["PCA"], mode="markers", about=["first"])
    (dots,) = kinds.lines({"a": own}, "t", "x", "y").data
    assert (dots.mode, dots.marker.color, plain(dots.customdata)) == ("markers", look("PCA").colour, ["first"])


SPREAD = [(i % 7 / 6, i / 19) for i in range(20)]


@pytest.mark.parametrize("height", [390, 250, 160])
def test_names_cover_neither_dots_nor_each_other(height):
    x, y = zip(*SPREAD)
    names = [f"name {i}" for i in range(20)]
    (dots,) = kinds.dots({"a": Curve(x, y, text=names)}, "t", "x", "y", height=height).data
    assert dots.mode == "markers+text" and plain(dots.customdata) == names
    room = (470, height - 130)
    at = [(px * room[0], py * room[1]) for px, py in SPREAD]
    boxes = [box(*place, text, side) for place, text, side in zip(at, dots.text, dots.textposition) if text]
    for i, one in enumerate(boxes):
        assert not any(meet(one, other) for other in boxes[:i])
        assert not any(meet(one, (px - 3, py - 3, px + 3, py + 3)) for px, py in at)
    assert boxes and (len(boxes) == 20 or height < 390)


def box(px, py, text, side):
    wide, tall = width_of(text, 11), 12
    up, across = side.split()
    px += {"right": 1, "left": -1}.get(across, 0) * (wide / 2 + 6)
    py += {"top": 1, "bottom": -1}.get(up, 0) * (tall / 2 + 5)
    return px - wide / 2, py - tall / 2, px + wide / 2, py + tall / 2


def meet(a, b):
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def test_earlier_names_come_first_and_what_has_no_room_is_on_hover_only():
    curve = Curve([0.0] * 30 + [1.0], [0.0] * 30 + [1.0], text=[f"name {i}" for i in range(31)])
    (dots,) = kinds.dots({"a": curve}, "t", "x", "y").data
    shown = [bool(text) for text in dots.text]
    assert shown[0] and shown[30] and not any(shown[10:30]) and dots.customdata[20] == "name 20"


def test_names_keep_clear_of_lines_and_of_points_that_are_not_there():
    curve = Curve([*range(5), None], [4, 3, 2, 1, 0, 7], text=["a long name"] * 6)
    (line,) = kinds.lines({"a": curve}, "t", "x", "y").data
    sides = [side for side, text in zip(line.textposition, line.text) if text]
    assert sides and set(sides[1:4]) <= {"top right", "bottom left"} and not line.text[5]


def test_dots_may_be_coloured_one_by_one_and_lie_beside_a_diagonal():
    fig = kinds.dots({"a": Curve([1, 2], [3, 0], colours=[0.0, 1.0])}, "t", "x", "y", diagonal=True)
    diagonal, dots = fig.data
    assert plain(diagonal.x) == plain(diagonal.y) == [0, 3]
    assert plain(dots.marker.color) == [0, 1] and dots.mode == "markers"


# ---------------------------------------------------------------------- bars, intervals, strips, histograms


def test_bars_stand_beside_each_other_with_their_intervals():
    groups = {"a": Curve(["k", "l"], [3, 2], [2, 1.5], [4, NAN]), "b": Curve(["k", "l"], [1, NAN])}
    fig = kinds.bars(groups, "t", "x", "y", level={"_one": 1})
    assert drawn(fig) == {"a": (["k", "l"], [3, 2]), "b": (["k", "l"], [1, None])}
    assert plain(fig.data[0].error_y.array) == [1, 0] and plain(fig.data[0].error_y.arrayminus) == [1, 0.5]
    assert fig.layout.barmode == "group" and fig.layout.xaxis.type == "category" and fig.layout.shapes[0].y0 == 1


def test_lying_bars_begin_at_the_top():
    fig = kinds.bars({"a": Curve(["first", "second"], [3, 2], [1, 1], [4, 4])}, "t", "x", "y", lying=True)
    assert drawn(fig) == {"a": ([3, 2], ["first", "second"])} and fig.data[0].orientation == "h"
    assert fig.layout.yaxis.autorange == "reversed" and plain(fig.data[0].error_x.array) == [1, 2]


def test_stacked_bars_have_texts_inside_and_colours_of_their_own():
    curve = Curve(["k"], [1.0], text=["100%"], about=[7], colours=["#000000"])
    fig = kinds.bars({"a": curve, "b": Curve(["k"], [0.0])}, "t", "x", "y", stacked=True)
    (bar, _) = fig.data
    assert fig.layout.barmode == "stack" and plain(bar.marker.color) == ["#000000"]
    assert (plain(bar.text), bar.textposition, plain(bar.customdata)) == (["100%"], "inside", [7])


def test_long_keys_are_broken_and_numbers_stay_numbers():
    fig = kinds.bars({"a": Curve(["many words under one bar " * 2, "b", "c", "d"], [1, 2, 3, 4])}, "t", "x", "y")
    assert "<br>" in fig.data[0].x[0]
    fig = kinds.bars({"a": Curve([10, 20], [1, 2])}, "t", "x", "y")
    assert drawn(fig) == {"a": ([10, 20], [1, 2])} and fig.layout.xaxis.type is None


def test_intervals_reach_from_low_to_high_in_a_row_each():
    groups = {"seeds": {"0": (1.0, 0.8, 1.3), "1": (2.0, NAN, NAN)}, "none": {}, "layers": {"two": (2.0, 1.0, 4.0)}}
    fig = kinds.intervals(groups, "t", "slope", mark={"law": 1.5}, about={"two": "3 seeds"})
    assert drawn(fig) == {"seeds": ([1, 2], [0, 1]), "layers": ([2], [2])}
    assert plain(fig.data[0].error_x.array) == pytest.approx([0.3, 0])
    assert plain(fig.data[0].error_x.arrayminus) == pytest.approx([0.2, 0])
    assert list(fig.data[1].customdata[0]) == ["two", 1, 4, "3 seeds"]
    assert fig.layout.yaxis.ticktext == ("0", "1", "two") and fig.layout.yaxis.range == (2.5, -0.5), "the first on top"
    assert fig.layout.shapes[0].x0 == 1.5


def test_intervals_of_several_groups_may_share_their_rows():
    groups = {name: {"first": (1.0, 0.8, 1.3), "second": (2.0, NAN, NAN)} for name in "abc"}
    fig = kinds.intervals(groups, "t", "AUC", shared=True)
    assert fig.layout.yaxis.ticktext == ("first", "second") and fig.layout.yaxis.range == (1.5, -0.5)
    assert [[round(at, 6) for at in trace.y] for trace in fig.data] == [[-0.2, 0.8], [0, 1], [0.2, 1.2]]
    assert len({trace.marker.color for trace in fig.data}) == 3 and fig.layout.showlegend


def test_a_shared_row_is_found_by_its_name():
    groups = {"a": {"first": (1.0, 1, 1), "second": (2.0, 2, 2)}, "b": {"second": (4.0, 4, 4), "first": (3.0, 3, 3)}}
    fig = kinds.intervals(groups, "t", "x", shared=True)
    assert [(x, round(y)) for x, y in zip(fig.data[1].x, fig.data[1].y)] == [(4, 1), (3, 0)]


def test_strips_keep_every_value():
    fig = kinds.strips({"a": [0.9, 0.95], "b": [1.0]}, "t", "R²", mark={"paper": 0.982})
    assert {name: x for name, (x, _) in drawn(fig).items()} == {"a": [0.9, 0.95], "b": [1]}
    assert all(trace.boxpoints == "all" and trace.line.color == kinds.NO_FILL for trace in fig.data)
    assert written(fig) == ["paper"] and fig.layout.shapes[0].x0 == 0.982 and fig.layout.yaxis.autorange == "reversed"


def test_boxes_may_leave_the_points_out_and_be_logarithmic():
    fig = kinds.strips({"a": [1.0, 100.0]}, "t", "x", box=True, points=False, ticks=[1, 10], mark={"ten": 10})
    assert fig.data[0].boxpoints != "all" and fig.data[0].line.color != kinds.NO_FILL
    assert fig.layout.xaxis.type == "log" and fig.layout.annotations[0].x == 1


def test_histograms_count_every_value_once():
    values = torch.tensor([0.1, 0.2, 0.26, 1.0, NAN])
    fig = kinds.histogram({"a": values}, "t", "x", "y", bins=(0, 0.25), mark={"here": 0.5})
    ((x, y),) = drawn(fig).values()
    assert x == pytest.approx([0.125, 0.375, 0.625, 0.875, 1.125]) and y == [2, 1, 0, 0, 1]
    assert fig.layout.shapes[0].x0 == 0.5


def test_bins_begin_where_they_are_told():
    ((x, y),) = drawn(kinds.histogram({"a": [1.0, 1.1, 2.0]}, "t", "x", "y", bins=(0.875, 0.25))).values()
    assert x[0] == 1.0 and y == [2, 0, 0, 0, 1]


def test_histograms_in_panels_and_over_each_other():
    fig = kinds.histogram({"p": {"a": [1.0, 2.0], "b": [2.0]}, "q": {"a": [4.0]}}, "t", ["x", "x"], ["y", "z"], bins=2)
    assert drawn(fig) == {"a": ([0.5, 1.5], [0, 2]), "b": ([0.5, 1.5], [0, 1]), "a 2": ([1, 3], [0, 1])}
    assert fig.layout.barmode == "overlay" and fig.data[0].opacity < 1 == fig.data[2].opacity


def test_values_that_are_all_the_same_fill_one_bin():
    for bins in (5, (0, 0.5)):
        ((_, y),) = drawn(kinds.histogram({"a": [0.0, 0.0]}, "t", "x", "y", bins=bins)).values()
        assert sum(y) == 2


# ---------------------------------------------------------------------- maps


def test_maps_have_their_rows_from_the_top():
    fig = kinds.heat({"": torch.tensor([[1.0, 2.0], [3.0, NAN]])}, "t", "x", "y", unit="share", columns="ab", rows="cd")
    assert cells(fig) == [[1, 2], [3, None]] and drawn(fig) == {"1": (["a", "b"], ["c", "d"])}
    assert fig.layout.yaxis.autorange == "reversed"
    axis = fig.layout.coloraxis
    assert (axis.cmin, axis.cmax, axis.colorbar.title.text) == (0, 3, "\u200b<br>share") and fig.data[0].text is None


def test_signed_maps_share_a_scale_around_zero():
    maps = {"a": torch.tensor([[0.5, -2.0]]), "b": torch.zeros(1, 2)}
    fig = kinds.heat(maps, "t", "x", "y", unit="u", signed=True, written=".1f")
    assert (fig.layout.coloraxis.cmin, fig.layout.coloraxis.cmax) == (-2, 2)
    assert [plain(row) for row in fig.data[0].text] == [["0.5", "-2.0"]]
    assert cells(fig, 1) == [[0, 0]] and fig.data[1].xaxis == "x2" and written(fig) == ["a", "b"]
    assert kinds.heat(maps, "t", "x", "y", unit="u", signed=True, limit=1).layout.coloraxis.cmin == -1


def test_gaps_have_no_number():
    fig = kinds.heat({"": torch.tensor([[NAN, 1.0]])}, "t", "x", "y", unit="u", written=".0f")
    assert [plain(row) for row in fig.data[0].text] == [["", "1"]]


@pytest.mark.parametrize(("columns", "beside"), [(8, 3), (9, 2), (40, 1)])
def test_maps_stand_beside_each_other_while_their_numbers_have_room(columns, beside):
    maps = {str(i): torch.ones(2, columns) for i in range(3)}
    fig = kinds.heat(maps, "t", "x", "y", unit="u", written=".0f")
    rows = {round(note.y, 3) for note in fig.layout.annotations}
    assert len(rows) == -(-3 // beside)


def test_a_map_of_zeros_has_a_scale():
    assert kinds.heat({"": torch.zeros(2, 2)}, "t", "x", "y", unit="u").layout.coloraxis.cmax == 1


# ---------------------------------------------------------------------- nothing there

NOTHING = Curve([1], [NAN])


@pytest.mark.parametrize(
    "fig",
    [
        kinds.lines({}, "t", "x", "y"),
        kinds.lines({"a": NOTHING}, "t", "x", "y"),
        kinds.lines({"panel": {"a": NOTHING}, "other": {}}, "t", "x", "y"),
        kinds.dots({"a": Curve([], [])}, "t", "x", "y", diagonal=True),
        kinds.bars({}, "t", "x", "y"),
        kinds.bars({"a": Curve(["k"], [NAN])}, "t", "x", "y"),
        kinds.intervals({}, "t", "x"),
        kinds.intervals({"a": {}, "b": {"row": (NAN, NAN, NAN)}}, "t", "x"),
        kinds.strips({"a": []}, "t", "x"),
        kinds.histogram({"a": torch.tensor([NAN])}, "t", "x", "y"),
        kinds.heat({}, "t", "x", "y", unit="u"),
        kinds.heat({"": torch.full((2, 2), NAN)}, "t", "x", "y", unit="u"),
    ],
)
def test_nothing_there_is_said_in_words(fig):
    assert says_nothing_is_there(fig) and fig.layout.title.text == "t"


def test_what_is_there_is_drawn_beside_what_is_not():
    fig = kinds.lines({"panel": {"a": Curve([1], [2]), "b": NOTHING}, "empty": {}}, "t", "x", "y")
    assert drawn(fig) == {"a": ([1], [2]), "b": ([1], [None])}
    fig = kinds.histogram({"a": [1.0], "b": []}, "t", "x", "y")
    assert sum(drawn(fig)["a"][1]) == 1 and sum(drawn(fig)["b"][1]) == 0
