"""The drawings of notebook 08 fit into a column, and say what they are given."""

from sae_tutorial.course.ioi_circuit import drawings


def test_the_circuit_has_its_heads_and_what_was_measured():
    heads = {"name-carrying": "4.4", "name movers": "5.1  5.2", "suppression heads": "6.3"}
    svg = drawings.circuit(heads, "71%").svg()
    assert all(name in svg for name in ("5.1  5.2", "6.3", "71%", "4.4 writes")) and "0.0 writes" not in svg
    assert "John" in drawings.circuit().alt and drawings.circuit().width <= 620


def test_the_task_has_its_roles_and_three_sentences():
    svg = drawings.task().svg()
    assert all(f">{role}</text>" in svg for role in ("IO", "S1", "S1+1", "S2", "END", "original", "swapped", "ABC"))
    assert svg.count(">Mary</text>") == svg.count(">John</text>") == 4 and drawings.task().width <= 620


def test_two_ways_to_patch_differ_in_what_reacts():
    drawing = drawings.two_ways_to_patch()
    assert drawing.svg().count("frozen") == 2 and "react" in drawing.alt and drawing.width <= 620
