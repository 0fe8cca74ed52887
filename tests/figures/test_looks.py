import pytest

from sae_tutorial.figures.looks import LOOKS, NAMES, look, looks
from sae_tutorial.figures.style import PALETTE, TEXT


def test_every_method_of_the_grid_has_a_look_by_either_name():
    for key, name in NAMES.items():
        assert look(key) == look(name) == LOOKS[name]
        assert look(name).colour not in (PALETTE[6], PALETTE[7], TEXT), "grey is for what is no method, yellow is faint"


def test_no_two_methods_look_alike():
    assert len(set(LOOKS.values())) == len(LOOKS)


@pytest.mark.parametrize(("family", "members"), [("Token Choice", "TopK"), ("Mutual Choice", "BatchTopK")])
def test_a_family_has_one_hue(family, members):
    hues = {look(name).colour for name in NAMES.values() if name.endswith((f" {members}", f" {members}, cut at k"))}
    assert hues == {look(family).colour}


def test_names_without_a_look_take_colours_that_are_free():
    found = looks(["a", "Mutual Choice", "b", "a"])
    assert list(found) == ["Mutual Choice", "a", "b"] and found["Mutual Choice"] == look("Mutual Choice")
    assert len({one.colour for one in found.values()}) == 3


def test_many_names_stay_apart():
    found = looks(map(str, range(20)))
    assert len(set(found.values())) == 20


def test_an_unknown_method_has_no_look():
    with pytest.raises(KeyError, match="no such method"):
        look("no such method")


def test_what_is_random_is_grey_and_dotted():
    found = looks(["random directions", "a"])
    assert found["random directions"] == (TEXT, "dot", "circle") and found["a"].colour != TEXT
