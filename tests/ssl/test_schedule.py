import pytest

from softedge.ssl.schedule import cosine, learning_rate


def test_the_learning_rate_warms_up_from_zero_and_ends_at_zero():
    assert learning_rate(0.0, 0.1) == 0
    assert learning_rate(0.05, 0.1) == pytest.approx(0.5)
    assert learning_rate(0.1, 0.1) == pytest.approx(1.0)
    assert learning_rate(0.55, 0.1) == pytest.approx(0.5)
    assert learning_rate(1.0, 0.1) == pytest.approx(0.0)


def test_without_warmup_the_first_step_has_the_full_rate():
    assert learning_rate(0.0, 0.0) == 1.0


def test_cosine_meets_both_ends_and_the_middle():
    assert [cosine(0.9, 1.0, p) for p in (0, 0.5, 1)] == pytest.approx([0.9, 0.95, 1.0])
