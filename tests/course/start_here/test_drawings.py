import re

from sae_tutorial.course.start_here import drawings


def test_on_the_axis_two_meanings_lie_on_each_other_and_along_the_direction_one_stands_alone():
    svg = drawings.neuron_and_direction().svg()
    assert 'aria-label="Left: a layer of two neurons' in svg
    dots = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)" r="3" fill="(#\w+)"', svg)
    assert len(dots) == 2 * 3 * 12

    def spans(low, high):
        found = {}
        for x, y, colour in dots:
            if low < float(y) < high:
                found.setdefault(colour, []).append(float(x))
        return {name: found[colour] for name, (*_, colour) in drawings.MEANINGS.items()}

    axis, direction = spans(0, 110), spans(110, 262)
    assert min(axis["ship"]) < max(axis["evening"]) and min(axis["evening"]) < max(axis["ship"])
    assert min(direction["evening"]) - 20 > max(direction["ship"]) > max(direction["said"])


def test_no_neuron_is_negative():
    points = [place for _, place in drawings._cloud(1.0)]
    assert len(points) == 36 and min(min(place) for place in points) >= 0


def test_one_number_has_several_kinds_of_words_and_a_mix_has_one():
    svg = drawings.one_number_or_a_mix().svg()
    dots = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)" r="5" fill="(#\w+)"', svg)
    right = {}
    for x, y, colour in dots:
        if float(x) > 300:
            right.setdefault(float(y), []).append(colour)
    alone, mix = (right[y] for y in sorted(right))
    assert len(alone) == len(mix) == 5 and len(set(alone)) == 3 and len(set(mix)) == 1 and not set(mix) & set(alone)
