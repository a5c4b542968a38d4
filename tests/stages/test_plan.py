from __future__ import annotations

import dataclasses
import json

import pytest
import timm
import torch
from pictures import class_folders
from PIL import Image

import softedge
from softedge import config
from softedge.errors import UserError
from softedge.records import SIZES
from softedge.run import Run, write_text
from softedge.stages import deploy, fitting, front, kept, opening, overridden, plan, planning, pretrain, teachers
from softedge.stages.counts import Counts, Pace
from softedge.stages.data import opened
from softedge.stages.planned import Plan, PlannedStage
from softedge.stages.planning import choose, with_student
from softedge.stages.spreading_plan import spreading_minutes, within
from softedge.weights import hub, packages

COUNTS = Counts(pretrain=2000, train=2000, test=500, longer_side=512)
LITE0 = 0.014  # seconds an image at 128 pixels


def of(minutes: float, weights: str = "package", seconds: float = LITE0, **changes: int):
    return choose(dataclasses.replace(COUNTS, **changes), "a network", weights, Pace(seconds), minutes)


def test_more_minutes_never_give_fewer_pixels_and_the_time_is_kept():
    plans = [of(minutes) for minutes in (6, 10, 15, 30, 60, 240)]
    assert [p.size for p in plans] == sorted(p.size for p in plans)
    assert all(p.total <= p.minutes + 0.1 for p in plans)
    assert plans[0].size < plans[-1].size == SIZES[-1]


def test_a_faster_machine_takes_more_pixels():
    assert of(15, seconds=LITE0 / 4).size > of(15, seconds=LITE0 * 2).size


def test_given_weights_are_fine_tuned_and_random_ones_pretrained_first():
    given, random = of(15), of(15, "random", LITE0 / 4)
    assert given.values["ssl.epochs"] == 0 and given.values["finetune.epochs"] >= 7
    assert random.values["ssl.epochs"] >= 10 and random.values["finetune.epochs"] > 0
    assert any("starting weights are worth" in note for note in random.notes)


def test_minutes_that_leave_half_the_pixels_or_less_are_named_in_the_plan():
    few, enough = of(5, seconds=LITE0 * 2), of(60)
    assert few.size == 64 and few.few_pixels == (
        "planned at 64 of 224 pixels because of --minutes 5: more minutes are likely to be worth more "
        f"(96 pixels from about {few.more_minutes} on)"
    )
    assert f"note: {few.few_pixels}" in few.text() and few.to_dict()["few_pixels"] == few.few_pixels
    assert (enough.size, enough.few_pixels) == (224, "")
    assert not of(5, seconds=LITE0 * 2, longer_side=64).few_pixels, "the images have no more"
    limited = choose(COUNTS, "a network", "package", Pace(LITE0 * 2), 5, largest=96)
    assert limited.size == 64 and not limited.few_pixels, "nor does the device allow twice as many"
    assert not choose(COUNTS, "a network", "package", Pace(LITE0), 5, only=64).few_pixels, "they were asked for"


def test_the_minutes_that_a_plan_names_give_more_pixels_and_one_less_does_not():
    minutes, named = 1, []
    while (made := of(minutes)).more_minutes:
        before, after = of(made.more_minutes - 1), of(made.more_minutes)
        if made.size < SIZES[-1]:
            assert before.size == made.size < after.size
        else:  # epochs are all that is left to have more of
            assert before.values["finetune.epochs"] < after.values["finetune.epochs"]
        named.append(minutes := made.more_minutes)
    assert len(named) >= 3 and of(10 * minutes).values == of(minutes).values | {"plan.minutes": 10 * minutes}
    assert choose(COUNTS, "a network", "package", Pace(LITE0), 2, only=64).more_minutes > 2, "for more epochs"


def test_a_plan_beyond_its_minutes_does_not_round_them_down_to_what_was_asked():
    step = planning.PlannedStage("export", "", 2.3)
    made = Plan("a network", "package", 64, 2, 0.01, (step,), {})
    assert made.text().startswith("plan: a network at 64 pixels from ImageNet weights (package), about 2.3 minutes ")
    assert ", 2 were asked for" in made.text()
    fits = dataclasses.replace(made, minutes=15, steps=(dataclasses.replace(step, minutes=15.4),))
    assert "about 15 of 15 minutes on this machine" in fits.text()


def test_the_minutes_of_a_search_for_better_int8_files_are_said_where_there_may_be_one(photos):
    searched = plan.plan(str(photos), 5).text()
    assert "searched for a better one, roughly " in searched and " more for each of 3 formats" in searched
    for off in ("quantize.search=false", "export.precisions=['fp32']"):
        assert "search" not in plan.plan(str(photos), 5, [off]).text()
    one = plan.plan(str(photos), 5, ["export.targets=['onnx']"])
    minutes = round(one.steps[-1].minutes + 5 / 3)
    assert one.text().splitlines()[-1].endswith(f"is searched for a better one, roughly {minutes} minutes more")


def test_the_minutes_of_the_export_grow_with_the_files_and_the_devices_that_are_asked_for(
    photos, tmp_path, monkeypatch
):
    """They were those of nine files, whatever was set; ``--targets`` and ``--precisions`` came after the plan."""
    monkeypatch.setattr(deploy, "opened", lambda *_, **__: exit())
    default = minutes_of(plan.plan(str(photos), 30), "export")
    assert default == pytest.approx(planning._OTHERS + planning._OTHERS_MORE * Pace(LITE0).at(64))

    def export(*given):
        return minutes_of(plan.plan(str(photos), 30, given), "export")

    one = export("export.targets=['onnx']", "export.precisions=['fp32']")
    few = export("export.targets=['onnx']")
    assert one < few < default < export("export.targets=['onnx', 'openvino', 'coreml', 'litert', 'ncnn']")
    assert default < export("export.strict=true") and default < export("bench.devices=['local', 'browser:']")
    assert default < export("bench.preset='submission'")
    with pytest.raises(SystemExit):
        softedge.deploy(data=photos, out=tmp_path / "run", minutes=30, targets=["onnx"], precisions=["fp32"])
    kept_plan = json.loads((tmp_path / "run" / opening.PLAN).read_text())
    assert kept_plan["steps"][-1]["minutes"] == pytest.approx(one) and "searched" not in kept_plan["steps"][-1]["what"]


def test_too_few_minutes_give_the_least_plan_and_say_so():
    found = of(0.1)
    assert found.size == SIZES[0] and found.values["finetune.epochs"] == 1
    assert any("0.1 minutes are too few" in note for note in found.notes) and "too few" in found.text()


def test_few_labels_are_trained_on_four_times_and_the_plan_counts_all_of_them():
    few, many = (of(2, train=83, pretrain=83, test=21, few=few) for few in (True, False))
    tuned, once = (next(step for step in made.steps if step.stage == "finetune") for made in (few, many))
    assert tuned.what == "8 epochs on 83 labelled images, and on 3 parts of them to judge it"
    assert once.what == "8 epochs on 83 labelled images", "the fewest steps are more than an epoch"
    assert tuned.minutes == pytest.approx(4 * once.minutes)
    plans = [of(minutes, train=250, pretrain=250, few=True, seconds=10 * LITE0) for minutes in (8, 12, 20, 40)]
    assert all(made.total <= made.minutes + 0.1 for made in plans)


def test_distillation_on_few_images_is_planned_with_the_fewest_steps_it_takes():
    """20 steps of 32 images are 3.6 epochs on 179 images; with ten times as many, they are less than the one epoch."""
    few, many = (of(1, train=30, pretrain=n, test=50, few=True, seconds=LITE0 * 3) for n in (179, 1790))
    taught, once = (next(step for step in made.steps if step.stage == "distill") for made in (few, many))
    assert few.values["distill.epochs"] == many.values["distill.epochs"] == 1
    assert few.values["distill.min_steps"] * 32 / 179 == pytest.approx(3.6, abs=0.05)
    assert ": 4 epochs on 179 images" in taught.what and ": 1 epoch on 1,790 images" in once.what
    features = spreading_minutes(Counts(179, 30, 50, 512), True, few.size, Pace(LITE0 * 3))
    assert taught.minutes - features == pytest.approx(20 * 32 * Pace(LITE0 * 3).at(few.size) / 60)


def test_one_minute_is_too_few_in_the_singular():
    assert any(note.startswith("1 minute is too few") for note in of(1, seconds=1.0).notes)


def test_from_random_weights_most_minutes_go_to_the_labels_unless_few_images_have_one():
    def minutes(made, stage):
        return sum(step.minutes for step in made.steps if step.stage == stage)

    all_labelled, few = of(15, "random", LITE0 / 4), of(15, "random", LITE0 / 4, train=300)
    assert all_labelled.values["finetune.epochs"] == 4 * all_labelled.values["ssl.epochs"]
    assert minutes(all_labelled, "finetune") > 1.8 * minutes(all_labelled, "pretrain")
    assert minutes(few, "pretrain") > minutes(few, "finetune") and few.values["ssl.epochs"] >= 30
    assert all(13 < made.total <= 15.1 for made in (all_labelled, few))


def test_pretraining_on_one_view_is_counted_once_and_leaves_more_epochs():
    one, two = (of(15, "random", LITE0 / 4, views=views) for views in (1, 2))
    assert one.size == two.size and one.values["ssl.epochs"] > two.values["ssl.epochs"]
    for made, views in ((one, 1), (two, 2)):
        pretraining = next(step for step in made.steps if step.stage == "pretrain")
        images = made.values["ssl.epochs"] * COUNTS.pretrain * views
        assert pretraining.minutes == pytest.approx(images * Pace(LITE0 / 4).at(made.size) / 60)
        assert 13 < made.total <= 15.1


@pytest.mark.parametrize("weights", ["random", "package"])
def test_labels_alone_take_as_long_again_within_the_same_minutes(weights):
    without, beside = (of(15, weights, LITE0 / 4, scratch=scratch) for scratch in (False, True))
    minutes = {step.stage: step.minutes for step in beside.steps}
    assert minutes["scratch"] == pytest.approx(minutes["pretrain"] + minutes["finetune"])
    assert sum(minutes.values()) <= 15
    assert "scratch" not in {step.stage for step in without.steps}
    assert (beside.size, beside.values["finetune.epochs"]) < (without.size, without.values["finetune.epochs"])


def test_images_are_not_enlarged_much():
    assert of(240, longer_side=100).size == 128
    assert of(240, longer_side=32).size == SIZES[0]


def test_without_labels_nothing_is_fine_tuned():
    found = of(15, "random", LITE0 / 4, train=0, test=0)
    assert {step.stage for step in found.steps} == {"pretrain", "export"} and "finetune.epochs" not in found.values


def test_without_labels_the_pixels_fit_into_the_minutes():
    found = [of(minutes, train=0, test=0, seconds=LITE0 * 3) for minutes in (0.5, 3, 5, 30)]
    assert [made.size for made in found] == sorted(made.size for made in found)
    assert found[0].size == SIZES[0] and "too few" in found[0].text()
    assert found[-1].size == SIZES[-1] and "too few" not in found[1].text()
    assert all(made.total <= made.minutes for made in found[1:])


def test_a_handful_of_labels_keeps_its_time():
    assert of(15, train=10, pretrain=10, test=4).total < 15


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.setattr("softedge.eval.pace.measured", lambda *_: (LITE0, 0))
    return class_folders(tmp_path / "photos", {"cat": 12, "dog": 12})


def test_a_folder_starts_from_the_installed_weights_with_their_preprocessing(photos):
    recipe, made = plan.recipe_for(str(photos), None)
    assert made is not None and (recipe.backbone.name, recipe.backbone.weights) == ("tf_efficientnet_lite0", "package")
    assert recipe.data.mean == "weights" and recipe.ssl.epochs == 0
    assert recipe.data.size == made.size == 64  # of 64 x 48 pixels


def test_without_any_weights_the_folder_is_pretrained_from_random_ones(photos, monkeypatch):
    monkeypatch.setattr(packages, "PACKAGES", {})
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    recipe, made = plan.recipe_for(str(photos), None)
    assert made is not None and recipe.backbone.weights == "random" and recipe.ssl.epochs > 0
    assert recipe.backbone.name == config.load("small-domain").backbone.name
    assert recipe.ssl.batch <= made.values["ssl.batch"] == 4 < config.load("small-domain").ssl.batch  # 20 images train
    assert plan.recipe_for(str(photos), None, ["ssl.batch=8"])[0].ssl.batch == 8
    asked = []
    monkeypatch.setattr(plan, "choose", lambda counts, *args, **_: asked.append(counts.views) or choose(counts, *args))
    for method in ("simco", "seed"):  # two views and one
        plan.recipe_for(str(photos), None, [f"ssl.method={method}"])
    assert asked == [2, 1]
    assert recipe.finetune.layer_decay == 1.0


def test_set_wins_over_the_plan_and_a_named_recipe_is_taken_as_it_is(photos):
    assert plan.recipe_for(str(photos), None, ["data.size=96"])[0].data.size == 96
    named, made = plan.recipe_for(str(photos), "light-moco")
    assert made is None and named.ssl.epochs == config.load("light-moco").ssl.epochs
    with pytest.raises(UserError, match="--minutes plans for a folder"):
        plan.recipe_for(str(photos), "light-moco", minutes=5)


def test_a_run_keeps_its_plan_when_the_machine_has_become_slower(photos, tmp_path, monkeypatch):
    out = tmp_path / "run"
    recipe, made = plan.recipe_for(str(photos), None, out=out)
    write_text(out / "recipe.toml", config.to_toml(recipe))
    write_text(out / opening.PLAN, json.dumps(made.to_dict()))
    monkeypatch.setattr("softedge.eval.pace.measured", lambda *_: (100 * LITE0, 0))
    again, planned = plan.recipe_for(str(photos), None, out=out)
    assert planned is None and again == recipe
    assert plan.recipe_for(str(photos), None, out=out, minutes=1)[1] is not None
    write_text(out / "probe/result.json", "{}")
    with pytest.raises(UserError, match="was planned for 15 minutes, and --minutes 1 would train another network"):
        plan.recipe_for(str(photos), None, out=out, minutes=1)
    assert plan.recipe_for(str(photos), None, out=out, minutes=1, force=True)[1] is not None
    assert plan.recipe_for(str(photos), None, out=out, minutes=15)[0] == recipe
    with pytest.raises(UserError, match="was planned for 15 minutes"):
        plan.recipe_for(None, None, out=out, minutes=1)  # its data are known


def test_force_with_minutes_plans_anew_with_the_options_of_earlier_starts(photos, tmp_path, monkeypatch, capsys):
    """The same minutes gave the old plan, and others dropped ``--set`` and limits without a word."""
    monkeypatch.setattr(deploy, "opened", lambda *_, **__: exit())  # the plan is made and kept, no stage begins
    out = tmp_path / "run"

    def start(**options):
        with pytest.raises(SystemExit):
            softedge.deploy(data=photos, out=out, **options)
        write_text(out / "probe/result.json", "{}")
        return config.load(str(out / "recipe.toml")), json.loads((out / opening.PLAN).read_text())

    small = ["backbone.name='mobilenetv3_small_050'", "backbone.weights='random'"]
    first, before = start(minutes=2, targets=["onnx"], set=small, max_drop=0.5)
    monkeypatch.setattr("softedge.eval.pace.measured", lambda *_: (20 * LITE0, 0))
    capsys.readouterr()
    again, same = start(force=True)
    assert (again, same) == (first, before)
    assert (
        f"--force repeats the plan of {out}: mobilenetv3_small_050 at 64 pixels, ssl.epochs={first.ssl.epochs} and "
        f"finetune.epochs={first.finetune.epochs}; to plan anew, add --minutes 2"
    ) in capsys.readouterr().err
    for minutes in (2, 1):
        other, anew = start(force=True, minutes=minutes)
        assert anew["seconds_per_image"] == 20 * LITE0 and anew["minutes"] == minutes
        assert other.backbone == first.backbone and other.export.targets == ("onnx",) and other.check.max_drop == 0.5
        said = capsys.readouterr().err
        assert f"{out} is planned anew, with " in said and "--targets onnx, --set backbone.name=" in said
        assert "limit kept from an earlier start: --max-drop 0.5" in said
    replaced, _ = start(force=True, minutes=2, targets=["ncnn"], max_drop=0.1)
    assert (replaced.export.targets, replaced.check.max_drop) == (("ncnn",), 0.1)


def test_limits_and_devices_of_earlier_starts_belong_to_a_new_plan(tmp_path):
    run = Run(tmp_path)
    write_text(
        run.root / "recipe.toml", config.to_toml(config.load("photos", ["check.max_p90=20", "check.max_drop=0.5"]))
    )
    kept.keep(run, {"--max-ms": "20", "--devices": "adb:threads=2,local", "--precisions": "fp32,int8"})
    sets, limits = kept.carried(run, ["seed=1"], fitting.Limits(max_mb=4), {"--max-mb": "4", "--set seed": "1"})
    assert limits == fitting.Limits(20, 4, "adb:threads=2")
    recipe = config.load("photos", sets)
    assert (recipe.export.precisions, recipe.bench.devices) == (("fp32", "int8"), ("adb:threads=2", "local"))
    assert (recipe.check.max_drop, recipe.check.max_p90, recipe.seed) == (0.5, 0, 1)  # the plan sets max_p90


def test_options_that_change_the_plan_are_planned_with_as_long_as_nothing_was_done(photos, tmp_path):
    out = tmp_path / "run"
    recipe, made = plan.recipe_for(str(photos), None, out=out, minutes=2)
    write_text(out / "recipe.toml", config.to_toml(recipe))
    write_text(out / opening.PLAN, json.dumps(made.to_dict()))
    assert plan.recipe_for(None, None, ["data.size=64"], out=out)[1] is None  # which it is
    other, planned = plan.recipe_for(None, None, ["data.size=96"], out=out)
    assert planned is not None and (other.data.size, planned.size, planned.minutes) == (96, 96, 2)
    write_text(out / "probe/result.json", "{}")
    kept, planned = plan.recipe_for(None, None, ["data.size=96"], out=out)  # which ``started`` refuses
    assert planned is None and kept.finetune.epochs == recipe.finetune.epochs


@pytest.mark.parametrize("weights", ["package", "random"])
def test_grey_photos_get_no_colour_jitter_wherever_the_epochs_of_pretraining_come_from(photos, weights):
    """With starting weights pretraining is ``--set``, and the measured mean that told grey photos was not measured."""
    given = [f"backbone.weights={weights!r}"] + (["ssl.epochs=5"] if weights == "package" else [])
    given += ["backbone.name='mobilenetv3_small_050'"] if weights == "random" else []
    coloured, _ = plan.recipe_for(str(photos), None, given)
    for path in photos.glob("*/*.jpg"):
        Image.open(path).convert("L").convert("RGB").save(path)  # a colour file without colour
    grey, _ = plan.recipe_for(str(photos), None, given)
    assert grey.ssl.epochs > 0 and (grey.augment.jitter, grey.augment.grey) == (0, 0)
    assert coloured.augment.jitter > 0 and coloured.augment.grey > 0
    assert plan.recipe_for(str(photos), None, [*given, "augment.jitter=0.5"])[0].augment.jitter == 0.5


def test_a_recipe_that_jitters_the_colours_of_grey_photos_keeps_its_word_and_says_what_to_set(photos, tmp_path):
    """``pretrain`` follows no plan: the recipe and ``--set`` stand, and a line says what they cost."""

    def notice(name, *given):
        recipe = opening.choose_recipe(str(photos), "small-domain", ["data.size=32", *given])
        with opening.started(tmp_path / name, recipe) as run:
            return pretrain._grey_notice(recipe, opened(run, recipe, False))

    assert notice("coloured") == ""
    for path in photos.glob("*/*.jpg"):
        Image.open(path).convert("L").save(path)
    assert notice("grey").endswith("to leave that out: --set augment.jitter=0 --set augment.grey=0")
    assert notice("half", "augment.jitter=0").endswith("to leave that out: --set augment.grey=0")
    assert notice("off", "augment.jitter=0", "augment.grey=0") == ""


def test_pixels_that_are_set_are_planned(photos):
    made = plan.plan(str(photos), set=["data.size=48"])
    assert (made.size, made.values["data.size"]) == (48, 48) and "at 48 pixels" in made.text()
    assert made.total < plan.plan(str(photos), set=["data.size=224"]).total
    assert "--set" not in made.text()


def minutes_of(made, stage):
    return next(step.minutes for step in made.steps if step.stage == stage)


def test_pretraining_that_is_set_has_its_minutes_in_the_plan_and_in_the_total(photos, monkeypatch):
    monkeypatch.setattr("softedge.eval.pace.measured", lambda *_: (1.0, 0))  # a second an image
    recipe, made = plan.recipe_for(str(photos), None, ["ssl.epochs=20", "ssl.batch=4"], minutes=15)
    without = plan.plan(str(photos), 15)
    images = 20 * 2 * 20  # 20 epochs, two views, 20 of the 24 photos train
    assert minutes_of(made, "pretrain") == pytest.approx(images * Pace(1.0).at(64) / 60)
    assert made.total == pytest.approx(without.total + minutes_of(made, "pretrain")) and recipe.ssl.epochs == 20
    line = next(line for line in made.text().splitlines() if " pretrain " in line)
    assert "20 epochs on 20 images; from ImageNet weights it lowered accuracy" in line and "left out" not in made.text()


@pytest.mark.parametrize("images", [90, 240, 2000])
def test_a_note_on_epochs_names_those_of_the_line_for_fine_tuning(images):
    """20 steps of 32 images are 2.7 epochs on 240 and 7 on 90, of which it is not said that 7 are worth more."""
    budgets = (step / 100 for step in range(1, 5000))
    minutes = next(m for m in budgets if of(m, train=images, pretrain=images).values["finetune.epochs"] == 2)
    made = of(minutes, train=images, pretrain=images)
    line = next(step.what for step in made.steps if step.stage == "finetune")
    done = {90: 7, 240: 3, 2000: 2}[images]
    assert line.startswith(f"{done} epochs on")
    more = [note for note in made.notes if note.startswith("more minutes would help")]
    assert more == ([] if done == 7 else [f"more minutes would help: 7 epochs are worth more than {done}"])


@pytest.mark.parametrize("epochs", [3, 60])
def test_fine_tuning_that_is_set_takes_these_epochs_and_no_fewest_steps_of_the_plan_undo_it(photos, epochs):
    folder = class_folders(photos.parent / "more", {"cat": 200, "dog": 200})
    recipe, made = plan.recipe_for(str(folder), None, [f"finetune.epochs={epochs}"], minutes=5)
    planned = plan.plan(str(folder), 5)
    assert made.size == planned.size and f"  {epochs} epochs on 320 labelled images" in made.text()
    assert recipe.finetune.min_steps * recipe.finetune.batch <= epochs * 320
    assert minutes_of(made, "finetune") / minutes_of(planned, "finetune") == pytest.approx(
        epochs / planned.values["finetune.epochs"], rel=0.02
    )
    assert f"--set finetune.epochs={epochs} in place of the {planned.values['finetune.epochs']} planned" in made.text()


def test_a_total_beyond_the_minutes_is_said_of_what_was_set(photos, monkeypatch):
    monkeypatch.setattr("softedge.eval.pace.measured", lambda *_: (1.0, 0))
    made = plan.plan(str(photos), 15, ["finetune.epochs=2000"])
    over = round(made.total - 15)
    assert over > 100 and f"about {over} minutes beyond --minutes 15 in all" in made.text()
    assert f"about {made.total:.0f} minutes on this machine, 15 were asked for" in made.text()


def test_distillation_and_labels_alone_follow_the_epochs_that_are_set():
    counts = dataclasses.replace(COUNTS, train=600, scratch=True)
    before = choose(counts, "a network", "package", Pace(LITE0), 30)
    recipe = config.load("photos")
    planned = opening.replaced(recipe, **sections(before.values))
    twice = {name: {"epochs": 2 * before.values[f"{name}.epochs"]} for name in ("finetune", "distill")}
    after = overridden.with_epochs(before, planned, opening.replaced(planned, **twice), counts, Pace(LITE0))
    once = spreading_minutes(counts, True, before.size, Pace(LITE0))
    assert minutes_of(after, "distill") - once == pytest.approx(2 * (minutes_of(before, "distill") - once))
    assert minutes_of(after, "scratch") == pytest.approx(2 * minutes_of(before, "scratch"))
    assert f": {2 * before.values['distill.epochs']} epochs on 2,000 images" in after.text()


def sections(values):
    nested = {}
    for key, value in values.items():
        section, name = key.split(".")
        nested.setdefault(section, {})[name] = value
    return nested


def test_weights_of_another_network_are_refused_before_anything_is_written(photos, tmp_path, monkeypatch):
    monkeypatch.setattr("softedge.data.examining.examine", lambda *_: pytest.fail("they are looked at first"))
    other = timm.create_model("mobilenetv3_small_075", num_classes=0)
    torch.save(other.state_dict(), tmp_path / "other.pth")
    for file, why in (("other.pth", "does not hold weights of mobilenetv3_small_050: .* tensors do not fit, the first"),
                      ("missing.pth", "not a file")):  # fmt: skip
        given = ["backbone.name=mobilenetv3_small_050", f"backbone.weights={tmp_path / file}"]
        with pytest.raises(UserError, match=why):
            plan.plan(str(photos), set=given)
        for recipe in (None, "light-moco"):
            with pytest.raises(UserError, match=why):
                deploy.deploy(str(photos), recipe, tmp_path / "run", set=given)
    assert not (tmp_path / "run").exists()


def test_weights_that_the_hub_does_not_give_are_refused_by_the_plan_where_they_are_asked_for(photos, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(hub, "_cached", lambda repository: None)
    with pytest.raises(UserError, match="backbone.weights = 'imagenet': .* HF_HUB_OFFLINE is set"):
        plan.plan(str(photos), set=["backbone.weights=imagenet"])


def test_the_digits_stay_as_they_are():
    recipe, made = plan.recipe_for(None, None)
    assert made is None and recipe.backbone.weights == "random" and recipe.ssl.method == "light-moco"
    assert not recipe.plan.finetune


def test_a_mistyped_device_or_network_is_refused_before_anything_is_said_about_it(photos, capsys):
    with pytest.raises(UserError, match="unknown device 'phone'"):
        plan.plan(str(photos), device="phone")
    with pytest.raises(UserError, match="unknown backbone 'mobilenetv3_small_05'; did you mean"):
        plan.plan(str(photos), set=["backbone.name=mobilenetv3_small_05"])
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            'distill.spread_over=["run", "resnet1x"]',
            "distill.spread_over: unknown network 'resnet1x'; did you mean 'res",
        ),
        (
            'distill.spread_over=["resnet18.nosuch"]',
            "distill.spread_over: unknown tag 'nosuch' of network 'resnet18'; timm has .*a1_in1k",
        ),
        ('distill.spread_over=["rum"]', "distill.spread_over: unknown network 'rum'; did you mean 'run'"),
        ("distill.teacher=resnet1x", "unknown teacher 'resnet1x'; did you mean 'res"),
        ("distill.teacher=resnet18.nosuch", "unknown tag 'nosuch' of teacher 'resnet18'; timm has"),
        ("distill.backbone=mobilenetv3_small_05", "unknown backbone 'mobilenetv3_small_05'; did you mean 'mob"),
    ],
)
def test_a_mistyped_network_of_distill_is_refused_before_anything_is_trained_or_looked_up(
    photos, tmp_path, monkeypatch, given, said
):
    monkeypatch.setattr(plan.starting, "resolve", lambda *_: pytest.fail("weights were looked up"))
    for recipe in (None, "photos"):
        with pytest.raises(UserError, match=said):
            deploy.deploy(str(photos), recipe, out=tmp_path / "run", set=[given])
    with pytest.raises(UserError, match=said):
        plan.plan(str(photos), set=[given])
    with pytest.raises(UserError, match=said):
        softedge.pretrain(str(photos), "photos", out=tmp_path / "run", set=[given])
    assert not (tmp_path / "run").exists()


def test_a_run_that_is_resumed_refuses_a_mistyped_network_of_distill_as_well(photos, tmp_path, monkeypatch):
    run = Run(tmp_path / "run")
    recipe, made = plan.recipe_for(str(photos), None, ["backbone.weights=random"], out=run.root)
    run.root.mkdir()
    (run.root / "recipe.toml").write_text(config.to_toml(recipe))
    plan.write(run, made)
    with pytest.raises(UserError, match="distill.spread_over: unknown network 'resnet1x'"):
        deploy.deploy(out=run.root, set=['distill.spread_over=["resnet1x"]'])


def test_networks_of_distill_that_timm_has_and_runs_that_are_made_later_are_no_mistakes(monkeypatch):
    monkeypatch.setattr(plan.starting, "resolve", lambda *_: pytest.fail("weights were looked up"))
    over = 'distill.spread_over=["auto", "run", "words", "resnet18", "resnet18.a1_in1k"]'
    for teacher in ("auto", "best", "ensemble", "resnet18.a1_in1k", "runs/large"):
        teachers.refuse_unknown_names(
            config.build({}, [over, f"distill.teacher={teacher}", "distill.backbone=resnet18"])
        )


def test_a_plan_needs_a_folder():
    with pytest.raises(UserError, match="not a folder"):
        plan.plan("digits")


def test_given_weights_without_labels_are_exported_as_they_are():
    found = of(15, train=0, test=0)
    assert found.values["ssl.epochs"] == 0 and found.size == SIZES[-1] and not found.notes


def test_few_labels_spread_in_place_of_fine_tuning_and_many_are_fine_tuned_before_they_teach():
    few, many = of(15, train=50, few=True), of(15, train=600)
    assert {step.stage for step in few.steps} == {"pretrain", "probe", "distill", "baselines", "export"}
    assert {"finetune", "distill"} < {step.stage for step in many.steps}
    assert few.values["distill.epochs"] >= 10 and few.total <= 15.1 and many.total <= 15.1
    assert "distill" not in {step.stage for step in of(15).steps}  # all have a label


def test_what_labels_spread_over_takes_a_quarter_of_the_minutes_at_most():
    beside = (("larger", 2.0), ("smaller", 1.0))
    counts = dataclasses.replace(COUNTS, train=50, few=True, beside=beside, longer_side=250)
    own = 2000 * Pace(LITE0).at(224) * 0.35 / 60  # minutes of the run's own features
    words = (5 + 2000 * 0.02) / 60

    def settings(minutes, counts=counts, given=True, larger=True):
        weights, pace = "package" if given else "random", Pace(LITE0)
        made = choose(within(counts, given, 224, pace, minutes, larger), "a network", weights, pace, minutes)
        return tuple(made.values.get(f"distill.{name}") for name in ("spread_over", "teacher_size", "teacher"))

    assert settings(4 * (4.1 * own + words)) == (("run", "smaller", "larger", "words"), None, None)
    assert settings(4 * (3.9 * own + words)) == (("run", "smaller", "words"), None, None)
    assert settings(4 * (1.9 * own + words)) == settings(4 * (1.1 * own + words)) == (("run", "words"), None, None)
    assert settings(4 * (1.1 * own)) == settings(1.0) == (("run",), None, None), "few labels spread, whatever it costs"

    large, more = dataclasses.replace(counts, longer_side=256), (288 / 224) ** 2
    assert settings(4 * (4.1 * more * own + words), large) == (("run", "smaller", "larger", "words"), 288, None)
    assert settings(60, large, larger=False) == (("run", "smaller", "larger", "words"), None, None)
    assert settings(4 * (3.9 * more * own + words), large) == settings(4 * (4.1 * own + words), large)
    assert settings(4 * (2.1 * more * own + words), large) == (("run", "smaller", "words"), 288, None)

    known = dataclasses.replace(large, beside=(("tf_efficientnet_lite1", 1.6),))  # whose weights have seen 240 pixels
    both = more + 1.6 * (288 / 240) ** 2
    assert settings(4 * (1.01 * both * own + words), known)[1] == 288
    assert settings(4 * (0.99 * both * own + words), known) == (("run", "tf_efficientnet_lite1", "words"), None, None)

    some = dataclasses.replace(counts, train=600, few=False)
    assert settings(4 * (4.1 * own + words), some) == (("run", "smaller", "larger", "words"), None, None)
    assert settings(4 * 0.9 * own, some) == (("run",), None, "best")
    assert settings(15, counts, given=False) == (("run", "words"), None, None)
    assert settings(1, dataclasses.replace(counts, pretrain=20_000), given=False) == (("run",), None, None)


def test_the_device_limits_the_pixels_however_many_minutes_there_are():
    assert choose(COUNTS, "a network", "package", Pace(LITE0), 240, largest=96).size == 96


@pytest.fixture
def measured(monkeypatch):
    """An image takes a millisecond for every 32 pixels of its side, of a small network half as long; 3 and 1 MB."""
    seen = []

    def at(recipe, size, limits):
        small = recipe.backbone.name.startswith("mobilenetv3_small")
        seen.append(size)
        return fitting.Fit(recipe.backbone.name, size, size / (64 if small else 32), 1.0 if small else 3.0)

    monkeypatch.setattr(fitting, "_measured", at)
    return seen


def test_the_largest_size_that_is_fast_enough_is_planned_and_stays_a_gate(photos, measured, monkeypatch):
    monkeypatch.setattr(plan, "sizes_for", lambda counts: list(SIZES))
    limits = fitting.Limits(max_ms=4.0, max_mb=3.5, device="local")
    recipe, made = plan.recipe_for(str(photos), None, ["data.resize=0"], minutes=240, limits=limits)
    assert measured == [64, 224, 128, 192, 160], "the smallest network at the fewest pixels, then by halving"
    assert made.size <= 128 and recipe.data.size == made.size
    assert (recipe.check.max_p90, recipe.check.max_size) == (4.0, 3_500_000)
    name = "tf_efficientnet_lite0"
    assert f"the device: {name} takes 4.00 ms (p90) and 3.0 MB at 128 pixels, meets the limits" in made.text()
    last = {"network": name, "size": 128, "p90_ms": 4.0, "megabytes": 3.0, "met": True, "top1": None, "images": 0}
    last["p50_ms"] = None
    assert made.to_dict()["fits"][-1] == last and [fit.met for fit in made.fits] == [True, False, False, False, True]
    assert recipe.distill.backbone == "" and recipe.export.source == "best"


@pytest.fixture
def every_size(monkeypatch):
    """Photos large enough for all sizes."""
    monkeypatch.setattr(plan, "sizes_for", lambda counts: list(SIZES))
    monkeypatch.setattr(planning, "sizes_for", lambda counts: list(SIZES))


def test_a_deployment_plans_with_the_formats_and_precisions_of_its_command_line(photos, tmp_path, monkeypatch):
    asked = []

    def measured(recipe, size, limits):
        asked.append((recipe.export.targets, recipe.export.precisions))
        raise UserError("that is all")

    monkeypatch.setattr(fitting, "_measured", measured)
    with pytest.raises(UserError, match="that is all"):
        deploy.deploy(str(photos), out=tmp_path / "run", targets=["openvino"], precisions=["fp32"], max_mb=4)
    assert asked == [(("openvino",), ("fp32",))]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"precisions": ["fp99"]}, "no 'fp99' in ONNX"),
        ({"precisions": []}, "nothing to export"),
        ({"targets": ["onnx"], "precisions": ["w8a8"]}, "no 'w8a8' in ONNX; did you mean"),
        ({"set": ["export.targets=['onx']"]}, "unknown target 'onx'; did you mean 'onnx'"),
        ({"set": ["export.precisions=['fp99']"]}, "no 'fp99' in ONNX"),
    ],
)
def test_what_cannot_be_exported_is_refused_before_starting_weights_are_looked_up(
    photos, tmp_path, monkeypatch, given, said
):
    monkeypatch.setattr(plan.starting, "resolve", lambda *_: pytest.fail("weights were looked up"))
    for recipe in (None, "photos"):
        with pytest.raises(UserError, match=said):
            deploy.deploy(str(photos), recipe, out=tmp_path / "run", **given)
    if "set" in given:
        with pytest.raises(UserError, match=said):
            plan.plan(str(photos), set=given["set"])
    assert not (tmp_path / "run").exists()


def test_a_device_too_small_for_the_network_gets_a_smaller_one(photos, measured, every_size, monkeypatch):
    limits = fitting.Limits(max_ms=1.5)
    recipe, made = plan.recipe_for(str(photos), None, minutes=60, limits=limits)
    assert measured == [64, 224, 128, 96, 64, 224, 128, 96], "of three networks"
    assert (made.network, made.size, made.weights) == ("mobilenetv3_small_100", 96, "random")
    assert (recipe.backbone.name, recipe.backbone.weights) == ("mobilenetv3_small_100", "random")
    small = config.load("small-domain")
    assert (recipe.ssl.method, recipe.finetune.lr) == (small.ssl.method, small.finetune.lr), "from random weights"
    assert (recipe.distill.backbone, recipe.export.source) == ("", "best")
    assert recipe.check.max_p90 == 1.5 and recipe.data.size == 96 and recipe.ssl.epochs > 10
    assert [step.stage for step in made.steps] == ["pretrain", "probe", "finetune", "baselines", "export"]
    assert made.notes[-2:] == ("tf_efficientnet_lite0 does not meet 1.5 ms on local", front.NO_WEIGHTS)
    with pytest.raises(UserError, match="tf_efficientnet_lite0 does not meet 1.5 ms .* name a smaller network"):
        plan.recipe_for(str(photos), None, ["backbone.name=tf_efficientnet_lite0"], limits=limits)


def test_a_network_passed_over_for_times_that_other_work_disturbed_is_said_with_what_to_do(
    photos, every_size, monkeypatch
):
    def busy(recipe, size, limits):
        small = recipe.backbone.name.startswith("mobilenetv3_small")
        return fitting.Fit(recipe.backbone.name, size, 0.5 if small else 4.4, 1.0, p50_ms=0.1 if small else 0.3)

    monkeypatch.setattr(fitting, "_measured", busy)
    made = plan.plan(str(photos), max_ms=1.0, minutes=60)
    assert made.network == "mobilenetv3_small_100"
    assert "the device: tf_efficientnet_lite0 takes 4.40 ms (p90, disturbed by other work: p50 0.30 ms)" in made.text()
    (note,) = (note for note in made.notes if "other work disturbed" in note)
    assert "tf_efficientnet_lite0 at 224 pixels" in note and note.endswith("let the device idle and plan again")
    assert "mobilenetv3" not in note, "which meets the limit, disturbed or not"
    with pytest.raises(UserError, match="or plan again when the device is idle"):
        plan.plan(str(photos), max_ms=0.1, minutes=60)


def test_a_disturbed_time_above_the_limit_is_measured_again_and_the_calmest_counts(monkeypatch):
    times = [(0.3, 4.4), (0.3, 2.0), (0.3, 3.0), (0.3, 0.4)]

    def at(limit, taken):
        left = iter(taken)
        monkeypatch.setattr(fitting, "_timed", lambda *_: next(left))
        return fitting._times(None, None, "local", limit, None, 1), len(list(left))

    assert at(1.0, times) == ((0.3, 2.0), 1), "three timings"
    assert at(5.0, times) == ((0.3, 4.4), 3), "it meets the limit all the same"
    assert at(0.2, times) == ((0.3, 4.4), 3), "half of its images are too slow: no idle device would make it meet"
    assert at(1.0, [(3.9, 4.4), *times]) == ((3.9, 4.4), 4), "slow, and not disturbed"


def test_few_minutes_bound_the_fine_tuning_of_int8_as_well(photos, measured, every_size):
    def minutes(budget, set=()):
        return plan.recipe_for(str(photos), None, set, minutes=budget)[0].quantize.tune_minutes

    assert (minutes(1), minutes(0.01)) == (0.33, 0.01), "a number that a message can quote"
    assert minutes(1.5) == 0.5 and minutes(60) == config.build({}, ()).quantize.tune_minutes
    assert minutes(1.5, ["quantize.tune_minutes=4"]) == 4, "--set wins"


def test_a_smaller_network_starts_from_weights_where_there_are_any(photos, measured, every_size, monkeypatch):
    monkeypatch.setattr(hub, "unavailable", lambda name: "")
    recipe, made = plan.recipe_for(str(photos), None, minutes=60, limits=fitting.Limits(max_ms=1.5))
    assert (made.network, made.weights, recipe.ssl.epochs) == ("mobilenetv3_small_100", "imagenet", 0)


@pytest.mark.parametrize("given", [["distill.backbone=mobilenetv3_small_050"], ["backbone.weights=package"], None])
def test_a_smaller_network_is_taught_where_most_images_have_no_label_or_it_is_asked(
    photos, measured, every_size, given, monkeypatch
):
    if given is None:
        counted = plan.counted
        monkeypatch.setattr(plan, "counted", lambda facts: dataclasses.replace(counted(facts), pretrain=1000))
    recipe, made = plan.recipe_for(str(photos), None, given or [], minutes=60, limits=fitting.Limits(max_ms=1.5))
    asked = "mobilenetv3_small_050" if given and "distill" in given[0] else "mobilenetv3_small_100"
    assert (recipe.distill.backbone, recipe.distill.size) == (asked, 96), "--set wins"
    assert recipe.backbone.name == "tf_efficientnet_lite0" and recipe.export.source == "distill"
    assert recipe.check.max_p90 == 1.5 and recipe.distill.epochs >= 10
    stages = [step.stage for step in made.steps if step.stage != "finetune"]  # few labels spread, and are not tuned on
    assert stages == ["pretrain", "probe", "baselines", "distill", "export"]
    assert "distill" in deploy.chain(recipe, Labelled())[0], "though all images have a label"


class Numbers(list):
    """Images of which none was set aside."""

    @property
    def every(self):
        return self


class Labelled:
    """What ``chain`` looks at."""

    train, test, pretrain = Numbers(range(100)), Numbers(range(20)), Numbers(range(100))


@pytest.mark.parametrize("minutes", [0.1, 10, 60, 600])
@pytest.mark.parametrize("few", [False, True])
def test_the_student_has_the_minutes_that_its_teacher_leaves(minutes, few):
    counts = dataclasses.replace(COUNTS, train=100 if few else 2000, few=few)
    student = fitting.Fit("small", 96, 1.0, 1.0)
    made = with_student(counts, "large", "package", Pace(LITE0), minutes, student, Pace(LITE0 / 8))
    assert made.total <= max(minutes, 0.0) + 0.1 or any("too few" in note for note in made.notes)
    assert made.values["distill.epochs"] >= 10 and made.minutes == minutes
    assert few != ("finetune" in {step.stage for step in made.steps})
    assert (
        with_student(counts, "large", "package", Pace(LITE0), 2 * minutes, student, Pace(LITE0 / 8)).size >= made.size
    )


def test_a_student_takes_no_more_pixels_than_leave_it_epochs_enough():
    student = fitting.Fit("small", 224, 1.0, 1.0)

    def at(minutes, student=student):
        made = with_student(COUNTS, "large", "package", Pace(LITE0), minutes, student, Pace(LITE0 / 4))
        assert f"at {made.values['distill.size']} pixels" in next(s.what for s in made.steps if s.stage == "distill")
        return made.values["distill.size"], made.values["distill.epochs"]

    sizes = [at(minutes)[0] for minutes in (8, 15, 30, 60, 240)]
    assert sizes == sorted(sizes) and sizes[0] == 96 and sizes[-1] == 224
    assert all(epochs >= 25 for size, epochs in (at(30), at(60)) if size > 96)
    assert at(240, dataclasses.replace(student, size=64))[0] == 64


def test_limits_that_no_size_meets_name_the_nearest_and_a_smaller_network(measured):
    recipe = config.load("photos")
    with pytest.raises(UserError, match=r"not meet 1 ms on local at any size: the nearest is 2.00 ms .* at 64 pixels"):
        fitting.largest(recipe, SIZES, fitting.Limits(max_ms=1.0))
    with pytest.raises(UserError, match=r"does not meet 2.5 MB at any size"):
        fitting.largest(recipe, SIZES, fitting.Limits(max_mb=2.5))
    with pytest.raises(UserError, match=r"does not meet 1 ms .* and 2.5 MB .* the nearest is 2.00 ms .* at 64 pixels"):
        fitting.largest(recipe, SIZES, fitting.Limits(max_ms=1.0, max_mb=2.5))
    smaller = r"lite0, mobilenetv3_small_100 and mobilenetv3_small_050 do not .* mobilenetv3_small_050 with 1.00 ms"
    with pytest.raises(UserError, match=smaller):
        fitting.largest(recipe, SIZES, fitting.Limits(max_ms=0.5), ["mobilenetv3_small_100", "mobilenetv3_small_050"])
    assert measured == [64] * 4, "one measurement each says so"


@pytest.mark.parametrize("max_ms", [2, 2.5, 3, 3.5, 4, 4.5, 5, 5.5, 6, 6.9, 7, 9])
def test_halving_finds_what_trying_every_size_finds_with_no_more_than_five_measurements(measured, max_ms):
    fits = fitting.largest(config.load("photos"), SIZES, fitting.Limits(max_ms=max_ms))
    assert fits[-1].size == max(size for size in SIZES if size / 32 <= max_ms) and fits[-1].met
    assert len(measured) == len(set(measured)) == len(fits) <= 5
    assert len(measured) == 2 or max_ms < 7, "the fewest and the most pixels"


def test_limits_need_a_folder_that_is_planned(photos):
    with pytest.raises(UserError, match="--max-ms and --max-mb choose input size and network of a planned folder"):
        plan.recipe_for(str(photos), "light-moco", limits=fitting.Limits(max_mb=1.0))


def test_an_untrained_network_is_exported_and_timed_on_the_device(monkeypatch):
    tiny = {"backbone": {"name": "mobilenetv3_small_050"}, "export": {"targets": ["onnx"], "precisions": ["fp32"]}}
    fits = fitting.largest(config.build(tiny), (64,), fitting.Limits(max_ms=10_000.0, max_mb=100.0))
    assert len(fits) == 1 and fits[0].p90_ms > 0 and 1 < fits[0].megabytes < 10


@pytest.mark.parametrize(("epochs_at_160", "size"), [(9, 128), (13, 160), (26, 160), (32, 192), (70, 224)])
def test_pixels_are_taken_where_the_epochs_are_worth_them(epochs_at_160, size):
    """More pixels cost time on the device: they are taken where a smaller size has all the epochs that help."""
    minutes = 4 + epochs_at_160 * COUNTS.train * Pace(LITE0).at(160) / 60
    assert of(minutes, longer_side=300).size == size


def test_every_core_is_planned_where_it_was_measured_to_be_faster_and_smaller_sizes_count_one_less():
    pace = Pace(0.01, threads=3)
    assert pace.at(128) == 0.01 and pace.at(256) == pytest.approx(0.04)
    assert pace.at(64) == pytest.approx(0.01 / 4 * 3 / 2)
    assert choose(COUNTS, "a network", "package", pace, 15).values["plan.threads"] == 3
    assert "plan.threads" not in of(15).values


def test_the_stages_after_training_take_longer_on_a_slower_machine_and_with_more_pixels():
    def after(**changes) -> float:
        return of(60, **changes).steps[-1].minutes

    assert after(longer_side=100) < after(longer_side=300)
    assert after(seconds=LITE0 / 4, longer_side=100) < after(longer_side=100)


@pytest.mark.parametrize(
    ("needed", "asked", "told"),
    [
        (14.6, 15.0, "about 15 of 15 minutes on this machine"),
        (0.8, 1.0, "about 0.8 of 1 minute on this machine"),
        (1.7, 1.0, "about 2 minutes on this machine, 1 was asked for"),
        (1.2, 0.5, "about 1 minute on this machine, 0.5 were asked for"),
    ],
)
def test_a_plan_says_plainly_where_it_needs_more_than_was_asked_for(needed, asked, told):
    step = PlannedStage("export", "the files", needed)
    planned = Plan("a_network", "random", 64, asked, 0.01, (step,), {})
    assert planned.text().splitlines()[0] == f"plan: a_network at 64 pixels from random weights, {told}"
