import functools

import numpy as np
import pytest

from softedge import config
from softedge.errors import UserError
from softedge.ssl import sizing
from softedge.ssl import suggest as module

suggest = functools.partial(module.suggest, seconds=0.002, most=100)
for_data = functools.partial(module.for_data, most=100)

CASES = [
    (16, 32, 5, 0),
    (120, 64, 10, 0),
    (1438, 32, 3, 0),
    (2390, 128, 60, 0),
    (50_000, 32, 10, 1),
    (1_281_167, 224, 600, 8),
]


@pytest.mark.parametrize(("images", "size", "minutes", "gpus"), CASES)
def test_what_is_suggested_can_run_as_it_is(images, size, minutes, gpus):
    suggestion = suggest(images, size, minutes, gpus=gpus)
    recipe = config.load(suggestion.recipe, [f"{key}={value}" for key, value in suggestion.values.items()])
    sizing.require_feasible(recipe, images)
    assert sizing.notes(recipe, images) == [] or images < 64
    assert recipe.ssl.epochs * (images // recipe.ssl.batch) >= 300


def test_more_time_is_turned_into_more_steps():
    short, long = (suggest(2390, 128, minutes, seconds=0.05) for minutes in (40, 160))
    assert long.values["ssl.epochs"] == pytest.approx(4 * short.values["ssl.epochs"], rel=0.05)
    assert long.minutes == pytest.approx(160, rel=0.05)
    assert not any("would not be used" in reason for reason in long.reasons)


def test_a_few_photos_are_not_repeated_for_as_long_as_there_is_time():
    short, long = suggest(80, 64, 30), suggest(80, 64, 300)
    assert short.values == long.values and short.values["ssl.epochs"] == 100
    assert short.minutes == pytest.approx(100 * 80 * 0.002 / 60)
    assert "more minutes would not be used: 100 epochs are the most that are planned" in short.reasons


def test_minutes_are_those_of_a_step_measured_on_this_machine_for_every_view(monkeypatch):
    asked = []
    monkeypatch.setattr("softedge.eval.pace.measured", lambda *given: (asked.append(given), (0.3, 0))[1])
    suggestion = for_data("digits", minutes=90)
    recipe = config.load("small-domain")  # one view an image
    assert asked == [(recipe.backbone, 32)]
    images = suggestion.values["ssl.epochs"] * (1438 // 64) * 64
    assert suggestion.minutes == pytest.approx(images * 0.3 / 60) == pytest.approx(90, rel=0.1)


def test_too_little_time_is_said_and_not_hidden():
    suggestion = suggest(20_000, 224, 1, seconds=0.01)
    assert suggestion.minutes > 1
    assert any("pretraining gains little" in reason for reason in suggestion.reasons)


def test_more_images_get_a_longer_queue():
    queues = [suggest(n, 64, 60, gpus=1).values["ssl.queue"] for n in (200_000, 1_000_000)]
    assert queues == [131_072, 262_144]


def test_few_images_get_the_method_without_a_queue():
    suggestion = suggest(2390, 64, 60)
    assert config.load(suggestion.recipe).ssl.method == "visual-words"
    assert "ssl.queue" not in suggestion.values


def test_few_images_are_pointed_to_starting_weights():
    assert any("backbone.weights=imagenet" in reason for reason in suggest(120, 64, 10).reasons)


def test_a_handful_of_images_is_refused():
    with pytest.raises(UserError, match="5 images are too few"):
        suggest(5, 64, 10)


def test_the_digits_get_a_command_to_copy():
    suggestion = for_data("digits", minutes=3)
    assert suggestion.command("digits").startswith(
        "softedge deploy --data digits --recipe small-domain --set data.size=32"
    )


def test_grey_images_get_no_colour_jitter(tmp_path):
    from PIL import Image

    rng = np.random.default_rng(0)
    for kind, mode in (("grey", "L"), ("colour", "RGB")):
        (tmp_path / kind).mkdir()
        for number in range(20):
            levels = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(levels).convert(mode).save(tmp_path / kind / f"{number}.png")
    grey, colour = (for_data(str(tmp_path / kind)) for kind in ("grey", "colour"))
    assert grey.values["augment.jitter"] == 0.0
    assert any("the images are grey" in reason for reason in grey.reasons)
    assert "augment.jitter" not in colour.values
