from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from pictures import class_folders, save
from PIL import Image

from softedge.data import load
from softedge.errors import UserError
from softedge.run import Run
from softedge.stages import map as stage
from softedge.stages.map import map as map_
from softedge.stages.opening import reopen
from softedge.stages.pretrain import pretrain
from softedge.stages.report import report

SMALL = ["ssl.epochs=1", "ssl.batch=8", "data.size=32", "backbone.name=mobilenetv3_small_050", "data.workers=0"]
FEW_KEPT = [*SMALL, "export.calibration_images=1"]  # of the training images


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("map")
    class_folders(root / "photos", {"cat": 12, "dog": 12})
    for number in range(4):
        save(root / "photos" / f"{number}.jpg", 100 + number)
    pretrain(str(root / "photos"), out=root / "run", set=SMALL)
    return root / "run"


def test_every_image_has_a_place_its_name_its_label_and_its_thumbnail(run: Path) -> None:
    result = map_(run)
    assert result.metrics == {"n": 28, "n_images": 28}
    values = json.loads((run / "map/map.json").read_text())
    index = json.loads((run / "data/index.json").read_text())["items"]
    of_name = {row["name"]: row for row in index}
    assert sorted(values["names"]) == sorted(of_name)
    for name, label, tested in zip(values["names"], values["labels"], values["tested"]):
        assert label == of_name[name]["label"] and tested == (of_name[name]["split"] == "test")
    sheet = np.asarray(Image.open(run / "map/thumbnails.jpg")).astype(int)
    for number, name in enumerate(values["names"]):
        top, left = number // values["columns"] * 48, number % values["columns"] * 48
        with Image.open(run.parent / "photos" / name) as picture:
            expected = np.asarray(picture.convert("RGB"))[:, 8:56].mean((0, 1))  # the middle square
        assert np.abs(sheet[top : top + 48, left : left + 48].mean((0, 1)) - expected).max() < 6


def test_it_is_done_once_and_a_sample_is_drawn_of_many(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = map_(run)
    assert map_(run).started == first.started
    monkeypatch.setattr(stage, "AT_MOST", 15)
    assert map_(run, force=True).metrics == {"n": 15, "n_images": 28}


def test_the_report_shows_it(run: Path) -> None:
    map_(run, force=True)
    report(run)
    page = (run / "report.html").read_text()
    assert page.count('type="radio"') == 28 and "data:image/jpeg;base64," in page


def test_a_file_of_it_that_is_gone_is_missed_by_the_report_and_made_again(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    map_(copy, force=True)
    (copy / "map/map.json").unlink()
    with pytest.raises(UserError, match="no longer has map.json"):
        report(copy)
    assert map_(copy).metrics["n"] == 28
    assert (copy / "map/map.json").exists()
    report(copy)


def test_too_few_images_are_no_map(tmp_path: Path) -> None:
    class_folders(tmp_path / "photos", {"cat": 4, "dog": 4})
    pretrain(str(tmp_path / "photos"), out=tmp_path / "run", set=[*SMALL, "ssl.batch=4"])
    result = map_(tmp_path / "run")
    assert result.metrics["n"] == 0 and "too few" in result.skipped["map"]


def test_images_that_are_gone_stop_the_command_and_not_a_deployment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class_folders(tmp_path / "photos", {"cat": 8, "dog": 8})
    made = pretrain(str(tmp_path / "photos"), out=tmp_path / "run", set=FEW_KEPT)
    (tmp_path / "photos").rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="can no longer be used"):
        map_(tmp_path / "run")
    run = Run(tmp_path / "run")
    _, recipe = reopen(run.root)
    assert made is not None and stage.stage(run, recipe, load(run)) is None
    assert "map: left out" in capsys.readouterr().err and run.result("map") is None


def test_a_finished_map_outlasts_its_images(tmp_path: Path) -> None:
    class_folders(tmp_path / "photos", {"cat": 8, "dog": 8})
    pretrain(str(tmp_path / "photos"), out=tmp_path / "run", set=FEW_KEPT)
    made = map_(tmp_path / "run")
    before = {path.name: path.read_bytes() for path in (tmp_path / "run" / "map").iterdir()}
    (tmp_path / "photos").rename(tmp_path / "elsewhere")
    assert map_(tmp_path / "run") == made
    with pytest.raises(UserError, match="can no longer be used"):
        map_(tmp_path / "run", force=True)
    assert {path.name: path.read_bytes() for path in (tmp_path / "run" / "map").iterdir()} == before
