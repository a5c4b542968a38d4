from __future__ import annotations

import pytest

from softedge.report import svg, words


@pytest.mark.parametrize(
    ("write", "value", "text"),
    [
        (words.percent, 0.96234, "96.2 %"),
        (words.points, -0.0031, "−0.3"),
        (words.points, 0.00049, "0.0"),
        (words.milliseconds, 0.03712, "0.0371 ms"),
        (words.milliseconds, 12.04, "12.0 ms"),
        (words.size, 780_000, "0.78 MB"),
        (words.size, 14_200_000, "14.2 MB"),
        (words.size, 61_000_000, "61.0 MB"),
        (words.size, 12_000, "12 kB"),
        (words.exponent, 2.3e-6, "2.3·10⁻⁶"),
        (words.duration, 151.2, "2 min 31 s"),
        (words.count, 1437, "1 437"),
        (words.artifact_name, "coreml-int8", "Core ML int8"),
        (words.artifact_name, "coreml-int8-w8a8", "Core ML int8-w8a8"),
        (words.moment, "2026-11-20T17:07:00+01:00", "20 November 2026, 16:07 UTC"),
    ],
)
def test_numbers_are_written_as_people_read_them(write: object, value: object, text: str) -> None:
    assert write(value).replace(words.NARROW, " ") == text  # type: ignore[operator]


@pytest.mark.parametrize(("low", "high"), [(0.03, 0.05), (0.3, 9.0), (1.0, 1.4), (2.0, 700.0), (0.0004, 0.0041)])
def test_a_logarithmic_axis_always_has_some_and_never_too_many_ticks_inside_its_range(low: float, high: float) -> None:
    ticks = svg.Scale(low, high, 0, 100, log=True).ticks(6)
    assert 3 <= len(ticks) <= 9
    assert all(low * 0.99 <= tick <= high * 1.01 for tick in ticks)


def test_linear_ticks_are_round_and_inside() -> None:
    assert svg.linear_ticks(0.953, 0.982, 5) == [0.96, 0.97, 0.98]
    assert svg.linear_ticks(0, 60, 5) == [0, 20, 40, 60]


def test_a_scale_maps_its_ends_to_its_pixels() -> None:
    scale = svg.Scale(0.5, 8.0, 40, 400, log=True)
    assert (scale(0.5), scale(8.0), scale(2.0)) == (pytest.approx(40), pytest.approx(400), pytest.approx(220))


def test_text_in_a_drawing_is_escaped() -> None:
    assert svg.text(1, 2, "<b>&", class_="x") == '<text x="1" y="2" class="x">&lt;b&gt;&amp;</text>'
