"""Reading `circle` and `polygon`: what their texts mean, and invalid ones (CP22, CP23)."""

import pytest

from geocast.ingest.cap.shapes import CapCircle, CapRing, circle, polygon


def test_circle_radius_is_read_in_kilometres():
    """Centre and radius may be separated by any white space (CP23)."""
    assert circle(" 32.9525,-115.5527\n 1.5 ") == (CapCircle(32.9525, -115.5527, 1500.0), frozenset())
    assert circle("0,0 0") == (CapCircle(0.0, 0.0, 0.0), frozenset())


def test_ring_is_read_with_latitude_first():
    """CAP writes the latitude first (CP22)."""
    assert polygon("1,2 3,4 \n 5,6 1,2") == (CapRing(((1, 2), (3, 4), (5, 6), (1, 2))), frozenset())


def test_open_ring_is_closed():
    """A note mentions the change (CP22)."""
    assert polygon("1,2 3,4 5,6") == (CapRing(((1, 2), (3, 4), (5, 6), (1, 2))), frozenset({"ring-closed"}))


@pytest.mark.parametrize(("written", "lng"), [("180.085", -179.915), ("-360", 0.0), ("181", -179.0), ("180", 180.0)])
def test_longitudes_beyond_180_degrees_are_wrapped(written, lng):
    """Real rings across the antimeridian have such longitudes (CP22)."""
    found, notes = circle(f"1,{written} 5")
    assert found.lng == pytest.approx(lng)
    assert notes == ({"lng-wrapped"} if float(written) != lng else frozenset())


BAD_CIRCLES = ["", "1,2", "1 2 3", "1,2 -1", "1,2 1 1", "1,2,3 1", "1,2 1e3", "1,2 nan", "91,2 1", "1,361 1", "1,,2 1"]
BAD_RINGS = ["1,2", "1,2 3,4", "1,2 3,4 1,2", "1,2 3,4 5,6,", "1,2 3,4 [5,6", "1, 2 3,4 5,6", "1,2 3,4 ٥,6"]
BAD_RINGS += ["9" * 400 + ",1 2,3 4,5"]


@pytest.mark.parametrize(("parsed", "text"), [*((circle, t) for t in BAD_CIRCLES), *((polygon, t) for t in BAD_RINGS)])
def test_invalid_shape_is_refused_without_repeating_it(parsed, text):
    """The error says what is wrong (CP22, H9)."""
    with pytest.raises(ValueError, match=r"^must (be|have) ") as caught:
        parsed(text)
    assert not any(digits in str(caught.value) for digits in text.replace(",", " ").split() if len(digits) > 3)


def test_repr_of_shapes_has_no_coordinates():
    """The same holds for requested circles."""
    assert "32.95" not in repr((circle("32.95,1 1"), polygon("32.95,1 2,3 4,5")))
