"""Drawings of the report: to scale, with axes, labels and intervals."""

from html.parser import HTMLParser

import pytest

from utils.report.axes import Axis, Scale, short, tick
from utils.report.charts import Bounds, Chart, Level, Series, binned, interval

X, Y = Axis("steps"), Axis("nats & bits")


def drawn(*series, **more):
    return Chart("a & b", X, more.pop("y", Y), series, **more).svg()


def test_an_interval_is_drawn_to_scale():
    row = interval(4.0, low=3.0, high=5.5, scale=Bounds(2, 6))  # 57 a unit, from 6
    assert 'cx="120.0"' in row and 'x1="63.0" x2="205.5"' in row
    assert "band" not in interval(4.0, low=None, high=None, scale=Bounds(2, 6))


def test_a_line_runs_from_corner_to_corner():
    """The plot is 348 - 46 = 302 wide and 144 high; points keep 8 from its edges."""
    svg = drawn(Series([(0, 1.0), (10, 3.0)], line=True), level=Level(2.0, "half"))
    assert 'points="54.0,162.0 340.0,34.0"' in svg and "half 2.00" in svg
    assert '<line class="level" x1="46.0" x2="348.0" y1="98.0" y2="98.0"/>' in svg
    assert ">steps</text>" in svg and ">nats &amp; bits</text>" in svg and 'aria-label="a &amp; b"' in svg
    assert drawn(Series([(1, 2.0)], line=True))  # one point, no range


def test_a_log_scale_bends():
    svg = drawn(Series([(0, 1.0), (5, 10.0), (10, 100.0)], line=True), y=Axis("loss", log=True))
    assert "197.0,98.0" in svg and "loss, log scale" in svg  # 10 is half way from 1 to 100
    assert drawn(Series([(0, 0.0), (5, 10.0)]), y=Axis("loss", log=True))  # no logarithm of 0: linear


def test_dots_have_intervals_names_and_a_label():
    dots = Series([(0, 1.0), (10, 3.0)], "model", label="best", names=["1", "2"], bounds=[(0.0, 2.0), (2.0, 4.0)])
    svg = drawn(dots)
    assert svg.count('<line class="band"') == svg.count("<circle") == 2 and '<g class="model">' in svg
    assert 'x="60.0" y="124.0" text-anchor="start">1</text>' in svg  # on the left it would cover the axis
    assert 'text-anchor="end">2</text>' in svg and ">best</text>" in svg and "<title>10: 3.00</title>" in svg
    assert '<line class="band" x1="54.0" x2="54.0" y1="162.0" y2="98.0"/>' in svg  # 0 to 2 of 0 to 4


def test_labels_do_not_cover_one_another():
    svg = drawn(Series([(0, 1.0)], label="one"), Series([(0, 1.0)], label="two"), Series([(0, 2.0)], label="three"))
    places = {}

    class Labels(HTMLParser):
        def handle_starttag(self, tag, attributes):
            found = dict(attributes)
            self.y = float(found["y"]) if "value" in found.get("class", "") else None

        def handle_data(self, data):
            places[data] = self.y

    Labels().feed(svg)
    assert abs(places["one"] - places["two"]) >= 12 and places["three"] < places["one"]


def test_perfect_calibration_is_the_diagonal():
    svg = drawn(Series([(0.5, 0.75), (1.0, 0.9)]), diagonal=True)  # both axes from 0.5 to 1
    assert '<line class="level" x1="54.0" x2="340.0" y1="162.0" y2="34.0"/>' in svg
    assert '<circle cx="54.0" cy="98.0"' in svg


@pytest.mark.parametrize(
    "axis, low, high, expected",
    [
        (X, 0, 488, [0, 100, 200, 300, 400]),
        (X, -0.77, 1.92, [-0.5, 0, 0.5, 1, 1.5]),
        (X, 3, 3, [3]),
        (Axis("n", log=True, ticks=(1, 2, 4)), 1, 4, [1, 2, 4]),
        (Axis("loss", log=True), 0.3, 7, [0.5, 1, 2, 5]),
        (Axis("loss", log=True), 0.31, 0.42, [0.32, 0.34, 0.36, 0.38, 0.4, 0.42]),  # too short for powers of ten
    ],
)
def test_ticks_are_round(axis, low, high, expected):
    assert Scale(axis, low, high, start=0, end=100).ticks() == pytest.approx(expected)


def test_long_runs_are_binned():
    assert binned([(n, float(n)) for n in range(6)], most=3) == [(0.5, 0.5), (2.5, 2.5), (4.5, 4.5)]
    assert len(binned([(n, 0.0) for n in range(100_000)])) <= 60 and binned([]) == []


def test_numbers_are_short():
    numbers = {1067.4: "1,067", 6.973: "6.97", 0.3836: "0.384", -0.00123: "−0.0012", 1e-9: "0", 0: "0", -3e-5: "0"}
    assert {number: short(number) for number in numbers} == numbers
    assert [tick(number) for number in (0.0, 0.5, 2000, -7.5)] == ["0", "0.5", "2,000", "−7.5"]
