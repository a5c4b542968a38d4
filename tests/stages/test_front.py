"""The accuracy of networks and pixels before training, beside their time on the device."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from pictures import class_folders, stripes
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from softedge import backbones, config
from softedge.data.examining import examine, input_spec
from softedge.data.images import FileImages
from softedge.eval.features import extract
from softedge.stages import fitting, front, plan
from softedge.stages.counts import Pace
from softedge.stages.fitting import Fit
from softedge.stages.opening import replaced

NAME = "tf_efficientnet_lite0"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, rng = tmp_path_factory.mktemp("striped"), np.random.default_rng(0)
    for label, name in enumerate(("across", "down", "slanted")):
        (root / name).mkdir()
        for number in range(20):
            stripes(rng, label).resize((160, 144)).save(root / name / f"{number}.png")
    return root


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """An image takes a millisecond for every 32 pixels; what was asked, in order."""
    seen = []

    def at(recipe, size, limits):
        seen.append((recipe.backbone.name, size))
        return Fit(recipe.backbone.name, size, size / 32, 3.0)

    monkeypatch.setattr(fitting, "_measured", at)
    monkeypatch.setattr("softedge.eval.pace.measured", lambda *_: (0.01, 0))
    return seen


def recipe_of(folder: Path, **data: object) -> config.Recipe:
    recipe = config.load("photos", [f"data.source={folder}"])
    return replaced(recipe, backbone={"weights": "package"}, data=data)


def fits_at(*sizes: int, network: str = NAME) -> list[Fit]:
    return [Fit(network, size, size / 32, 3.0, met=True) for size in sizes]


def test_the_accuracy_is_that_of_an_independent_cross_validation(folder):
    recipe = recipe_of(folder)
    examined = examine(str(folder), recipe)
    items = front.drawn(examined, front.MOST, seed=0)
    (other, small, large), right = front.judged(
        [*fits_at(64, network="another"), *fits_at(64, 128)], {NAME: recipe}, examined, items
    )
    assert other.top1 is None and set(right) == {(NAME, 64), (NAME, 128)}
    images = FileImages(folder, [item.name for item in items], np.array([item.label for item in items]))
    for found, size in ((small, 64), (large, 128)):
        spec = input_spec(examined, replaced(recipe, data={"size": size}))
        features = extract(backbones.build(recipe.backbone), images, spec)
        features = (features - features.mean(0)) / (features.std(0) + 1e-6)
        folds = StratifiedKFold(3, shuffle=True, random_state=1)
        answers = cross_val_predict(LogisticRegression(C=1.0, max_iter=500), features, images.labels, cv=folds)
        assert found.images == len(items) == len(right[NAME, size])
        assert found.top1 == pytest.approx(right[NAME, size].mean(), abs=1e-4)
        assert found.top1 == pytest.approx((answers == images.labels).mean(), abs=0.1)
    again = front.judged(fits_at(64), {NAME: recipe}, examined, items)[0]
    assert again[0].top1 == small.top1, "the same every time"


def test_asked_are_labelled_training_images_once_each(folder, tmp_path):
    class_folders(tmp_path / "photos", {"cat": 40, "dog": 40})
    copies = [("cat/0.jpg", "cat/copy.jpg"), ("dog/3.jpg", "dog/copy.jpg")]
    for original, copy in copies:
        (tmp_path / "photos" / copy).write_bytes((tmp_path / "photos" / original).read_bytes())
    examined = examine(str(tmp_path / "photos"), recipe_of(tmp_path / "photos"))
    items = front.drawn(examined, front.MOST, seed=0)
    known = {item.name: item for item in examined.items}
    assert all(known[item.name].split == "train" for item in items)
    assert len({item.sha256 for item in items}) == len(items) <= 64 < len(items) + 4
    some = front.drawn(examined, 40, seed=0)
    assert len(some) == 40 and some == front.drawn(examined, 40, seed=0) != front.drawn(examined, 40, seed=1)


def test_few_labels_and_one_class_have_no_accuracy(folder, tmp_path):
    few = class_folders(tmp_path / "photos", {"cat": 12, "dog": 12})
    assert front.drawn(examine(str(few), recipe_of(few)), front.MOST, seed=0) == []
    examined = examine(str(folder), recipe_of(folder))
    alike = dataclasses.replace(examined, items=[dataclasses.replace(item, label=0) for item in examined.items])
    assert front.drawn(examined, front.MOST, seed=0) and front.drawn(alike, front.MOST, seed=0) == []


def test_the_plan_has_the_front_up_to_the_size_that_meets_the_limit(folder, timed):
    made = plan.plan(str(folder), minutes=60, max_ms=4.5)
    assert timed == [("mobilenetv3_small_050", 64), (NAME, 160), (NAME, 96), (NAME, 128), (NAME, 64)]
    assert [fit.size for fit in made.fits if fit.network == NAME] == [160, 96, 64, 128]
    assert made.fits[-1].met and all((fit.top1 is None) == (fit.network != NAME) for fit in made.fits)
    text = made.text()
    assert "takes 4.00 ms (p90) and 3.0 MB at 128 pixels, top-1 " in text and "held out in turn" in text
    assert text.index("at 64 pixels, top-1") < text.index("at 96 pixels, top-1") < text.index("at 160 pixels, top-1")
    kept = json.loads(json.dumps(made.to_dict()))["fits"]
    assert [fit["top1"] for fit in kept] == [fit.top1 for fit in made.fits] and kept[-1]["images"] == made.fits[
        -1
    ].images


@pytest.mark.parametrize("limits", [{}, {"max_mb": 4.0}])
def test_without_a_limit_of_time_nothing_is_asked(folder, timed, limits, monkeypatch):
    monkeypatch.setattr(front, "judged", lambda *_: pytest.fail("it takes time that nobody asked for"))
    assert "top-1" not in plan.plan(str(folder), **limits).text()


def test_without_labels_or_time_the_plan_says_why_and_measures_nothing_more(folder, tmp_path, timed):
    unlabelled = class_folders(tmp_path / "photos", {".": 40})
    made = plan.plan(str(unlabelled), max_ms=4.5)
    assert front.NO_LABELS in made.notes and all(fit.top1 is None for fit in made.fits)
    assert front.NO_TIME in plan.plan(str(folder), minutes=0.01, max_ms=4.5).notes
    assert (NAME, 64) not in timed[2:], "64 pixels are measured for the front only"


def test_images_are_as_many_as_fit_into_a_tenth_of_the_minutes_and_a_minute():
    pace = Pace(0.02)
    assert front.affordable([128], pace, 15) == front.MOST
    assert front.affordable([128] * 10, Pace(0.2), 100) == int(60 / (0.35 * 0.2 * 10)) == 85
    assert front.affordable([128] * 10, Pace(0.2), 5) == int(30 / (0.35 * 0.2 * 10)) == 42


@pytest.mark.parametrize(
    ("n", "lost", "won", "good"),
    [(500, 0, 0, True), (500, 10, 10, True), (500, 30, 30, False), (500, 30, 36, True), (500, 9, 0, False),
     (40, 0, 0, False)],
)  # fmt: skip
def test_a_smaller_size_is_as_good_where_two_points_less_are_unlikely(n, lost, won, good):
    """Of 500 images, 20 disagreements have a standard error of 0.9 points, and 60 one of 1.6: two points are 1.3."""
    larger = np.arange(n) < n // 2
    smaller = larger.copy()
    smaller[:lost], smaller[n - won :] = False, True
    assert front.as_good(smaller, larger) == good


def test_a_size_that_loses_two_points_is_called_as_good_once_in_twenty():
    rng, found = np.random.default_rng(0), 0
    for _ in range(4000):
        kind = rng.choice(3, 500, p=(0.085, 0.065, 0.85))  # lost, won, as before
        larger = (kind == 0) | ((kind == 2) & (rng.random(500) < 0.8))
        found += front.as_good(np.where(kind == 2, larger, kind == 1), larger)
    assert 0.03 < found / 4000 < 0.06


def test_the_fewest_pixels_that_are_as_good_are_named_with_their_share_of_the_time():
    right = {(NAME, size): np.arange(500) < count for size, count in {64: 400, 96: 350, 128: 400, 160: 400}.items()}
    fits = [Fit(NAME, size, size / 32, 3.0, True, 0.8, 500) for size in (64, 96, 128, 160)]
    first, note = front.lines(fits, right, NAME, 160)
    assert "500 training images" in first and "standard error 0.018" in first
    assert note.startswith("128 pixels are as accurate") and "0.80 of the time: --set data.size=128" in note
    assert len(front.lines(fits, right, NAME, 128)) == 1, "96 are not, and what is below them is not looked at"
    assert len(front.lines(fits, right, NAME, 64)) == len(front.lines(fits, right, "another", 160)) == 1
    slower = [Fit(NAME, 128, 5.0, 3.0, True, 0.8, 500), fits[-1]]
    assert len(front.lines(slower, right, NAME, 160)) == 1


def test_a_shorter_side_that_is_set_holds_for_the_sizes_that_are_not_larger(folder):
    recipe = recipe_of(folder, resize=100)
    specs = front._specs(recipe, [64, 128], examine(str(folder), recipe))
    assert specs[64].resize == 100 and specs[128].resize >= 128


def test_pictures_that_are_gone_by_now_leave_no_accuracy(tmp_path):
    root = class_folders(tmp_path / "photos", {"cat": 40, "dog": 40})
    recipe = recipe_of(root)
    examined = examine(str(root), recipe)
    items = front.drawn(examined, front.MOST, seed=0)
    for item in items[:50]:
        (root / item.name).unlink()
    fits, right = front.judged(fits_at(64), {NAME: recipe}, examined, items)
    assert right == {} and fits == tuple(fits_at(64))
