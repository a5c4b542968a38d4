import math

import pytest
from small import recipe

from softedge.errors import UserError
from softedge.ssl.guard import Guard


def entry(loss: float, step: int = 10, **more) -> dict:
    return {
        "step": step,
        "epoch": step / 10,
        "loss": loss,
        "std": 0.9,
        "effective_rank": 40.0,
        "queue_fill": 1.0,
    } | more


def test_a_loss_that_is_not_a_number_stops_with_the_settings_to_change():
    with pytest.raises(UserError, match=r"the loss is nan at step 10 .*--set optim.lr=0.0125.*clip_norm"):
        Guard(recipe()).look(entry(math.nan), 0.5)


def test_embeddings_at_one_point_stop_the_training_only_when_they_stay_there():
    guard = Guard(recipe())
    for _ in range(4):
        assert guard.look(entry(5.0, std=0.01), 0.1) == []
    with pytest.raises(UserError, match=r"collapsed at step 10 .*standard deviation of 0.010.*--set optim.lr"):
        guard.look(entry(5.0, std=0.01), 0.1)


def test_low_ranks_at_the_very_beginning_are_no_collapse():
    guard = Guard(recipe())
    for _ in range(20):
        assert guard.look(entry(5.0, effective_rank=1.2), 0.05) == []


def test_a_short_dip_is_no_collapse():
    guard = Guard(recipe())
    for std in [0.01, 0.01, 0.9] * 5:
        guard.look(entry(5.0, std=std), 0.1)


def test_a_rising_loss_is_warned_of_once():
    guard = Guard(recipe())
    guard.look(entry(2.0), 0.1)
    said = [w for _ in range(20) for w in guard.look(entry(4.0), 0.2)]
    assert len(said) == 1
    assert "risen from 2.00 to 4.00" in said[0]
    assert "--set optim.lr=0.025" in said[0]


def test_a_loss_that_does_not_move_is_warned_of_after_a_third_of_training():
    guard = Guard(recipe())
    assert [w for progress in (0.05, 0.1, 0.2, 0.25) for w in guard.look(entry(6.0), progress)] == []
    (warning,) = guard.look(entry(5.99), 0.4)
    assert "stayed at 6.00" in warning
    assert "--set optim.lr=0.15" in warning


def test_a_healthy_training_is_left_in_peace():
    guard = Guard(recipe())
    assert [w for i in range(100) for w in guard.look(entry(6.0 - i * 0.03), i / 100)] == []


def test_a_loss_that_climbs_while_the_queue_fills_is_no_divergence():
    guard = Guard(recipe())
    for fill in range(10):
        assert guard.look(entry(0.5 * fill, queue_fill=fill / 10), 0.05) == []


def test_a_restored_guard_warns_where_the_other_would_have():
    guard, other = Guard(recipe()), Guard(recipe())
    for loss in (2.0, 4.0, 4.0, 4.0, 4.0):
        guard.look(entry(loss), 0.2)
    other.restore(guard.state())
    assert guard.look(entry(4.0), 0.2) == other.look(entry(4.0), 0.2) != []


def test_a_loss_that_becomes_another_one_is_not_compared_with_what_was_before():
    guard = Guard(recipe())
    guard.look(entry(2.0, objective=0.0), 0.1)
    assert [guard.look(entry(7.0, objective=1.0), 0.15) for _ in range(8)] == [[]] * 8


def test_a_negative_loss_near_its_best_is_no_divergence():
    guard = Guard(recipe())
    assert [guard.look(entry(loss), 0.2) for loss in (-0.1, -0.9, *(-0.85,) * 8)] == [[]] * 10
