"""Pictures, folders and shards after public bug reports of other projects; a test's id is the report's thread.

What was tried, and what of it failed here at first: ``benchmarks/results/reported-inputs.md``.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pictures import class_folders, photo, save
from PIL import Image
from test_shard_labels import labels, png, tar

from softedge import config
from softedge.data import load, sources
from softedge.data.decoding import BadImage, decode
from softedge.data.images import Data
from softedge.errors import UserError
from softedge.records import Result
from softedge.run import Run
from softedge.stages.data import prepare


def encoded(image: Image.Image, image_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


PHOTO = photo(0, 60, 90)
TURNED = {3: PHOTO[::-1, ::-1], 6: np.rot90(PHOTO, -1), 8: np.rot90(PHOTO, 1)}


@pytest.mark.parametrize(
    ("orientation", "image_format", "big_endian"),
    [
        pytest.param(3, "JPEG", False, id="ollama/ollama#18418"),
        pytest.param(6, "PNG", False, id="mittagessen/kraken#760"),
        pytest.param(8, "JPEG", False, id="nihui/waifu2x-ncnn-vulkan#119"),
        pytest.param(6, "JPEG", True, id="bwindels/exif-parser#21"),
        pytest.param(8, "WEBP", False, id="olive-groves/butterfly_viewer#7"),
        pytest.param(6, "TIFF", False, id="ArturKovacs/emulsion#148"),
    ],
)
def test_a_turned_photo_is_upright(orientation: int, image_format: str, big_endian: bool) -> None:
    exif = Image.Exif()
    if big_endian:
        exif.endian = ">"
    exif[0x0112] = orientation
    options = {"exif": exif.tobytes(), **({"quality": 95} if image_format in ("JPEG", "WEBP") else {})}
    found = decode(encoded(Image.fromarray(PHOTO), image_format, **options))
    assert found.shape == TURNED[orientation].shape
    assert np.abs(found.astype(int) - TURNED[orientation]).mean() < 6


GREY16 = (np.arange(60 * 90).reshape(60, 90) * 12).astype(np.uint16)  # 0 to 64,788


@pytest.mark.parametrize(
    ("values", "image_format"),
    [
        pytest.param(np.full((40, 40), 65535, np.uint16), "PNG", id="python-pillow/Pillow#5967"),
        pytest.param(GREY16, "PNG", id="python-pillow/Pillow#2574"),
        pytest.param(GREY16[::-1], "PNG", id="python-pillow/Pillow#3796"),
        pytest.param(GREY16, "TIFF", id="python-pillow/Pillow#1108"),
        pytest.param(GREY16 // 2, "PNG", id="python-pillow/Pillow#3011"),
        pytest.param(GREY16.astype(np.int32), "TIFF", id="python-pillow/Pillow#5248"),
    ],
)
def test_sixteen_bits_become_eight_without_clipping(values: np.ndarray, image_format: str) -> None:
    found = decode(encoded(Image.fromarray(values), image_format))
    np.testing.assert_allclose(found[..., 0], values / 257.0, atol=0.51)


@pytest.mark.parametrize(
    ("mode", "index", "image_format"),
    [
        pytest.param("P", 0, "GIF", id="python-pillow/Pillow#5548"),
        pytest.param("P", 253, "GIF", id="python-pillow/Pillow#2195"),
        pytest.param("L", 0, "GIF", id="python-pillow/Pillow#6086"),
        pytest.param("P", 7, "PNG", id="python-pillow/Pillow#6115"),
        pytest.param("L", 9, "PNG", id="imageio/imageio#1015"),
    ],
)
def test_what_is_transparent_becomes_white(mode: str, index: int, image_format: str) -> None:
    image = Image.fromarray(np.where(np.eye(40, dtype=bool), index, 100).astype(np.uint8))
    if mode == "P":
        image.putpalette([level for value in range(256) for level in (value // 2, value // 3, 10)])
    found = decode(encoded(image, image_format, transparency=index))
    assert (found[np.eye(40, dtype=bool)] == 255).all()
    assert (found[0, 1] == ([50, 33, 10] if mode == "P" else [100, 100, 100])).all()


@pytest.mark.parametrize(
    "marker",
    [
        pytest.param(True, id="haraldk/TwelveMonkeys#147"),
        pytest.param(False, id="LadybirdBrowser/ladybird#6486"),
    ],
)
def test_four_inks_are_no_negative(marker: bool) -> None:
    """Photoshop stores the inks inverted; browsers read them so with Adobe's marker and without."""
    data = encoded(Image.new("RGB", (40, 40), (220, 30, 30)).convert("CMYK"), "JPEG", quality=95)
    if not marker:
        at = data.index(b"\xff\xee\x00\x0eAdobe")
        data = data[:at] + data[at + 16 :]
    found = decode(data).reshape(-1, 3).mean(0)
    assert found[0] > 180 and found[1] < 80 and found[2] < 80, found


@pytest.mark.parametrize(
    ("image_format", "cut"),
    [
        pytest.param("PNG", 20, id="junyanz/pytorch-CycleGAN-and-pix2pix#876"),
        pytest.param("JPEG", 1, id="lucidrains/stylegan2-pytorch#7"),
        pytest.param("JPEG", 23, id="eg4000/SKU110K_CVPR19#28"),
        pytest.param("JPEG", 500, id="NJU-LHRS/Official_Remote_Sensing_Mamba#26"),
        pytest.param("PNG", 14, id="pytorch/pytorch#10938"),
        pytest.param("PNG", 300, id="RjDuan/AdvDrop#5"),
        pytest.param("JPEG", 54, id="pytorch/vision#138"),
        pytest.param("JPEG", 13, id="qualcomm/aimet#1685"),
        pytest.param("JPEG", 7, id="prannaykaul/lvc#19"),
        pytest.param("JPEG", 4, id="yhenon/pytorch-retinanet#93"),
    ],
)
def test_a_cut_file_is_whole_or_set_aside(image_format: str, cut: int) -> None:
    """Never pixels that were not in it: a file that lacks its end mark alone has them all."""
    whole = encoded(Image.fromarray(PHOTO), image_format)
    try:
        found = decode(whole[:-cut])
    except BadImage as error:
        assert "truncated" in str(error) or "damaged" in str(error) or "known format" in str(error)
    else:
        np.testing.assert_array_equal(found, decode(whole))


def test_a_marker_that_nobody_knows_costs_no_photo() -> None:
    """nothings/stb#424: a segment of an application between the others."""
    whole = encoded(Image.fromarray(PHOTO), "JPEG")
    odd = whole[:2] + b"\xff\xef\x00\x06odd!" + b"\xff\xff\xff" + whole[3:]
    np.testing.assert_array_equal(decode(odd), decode(whole))


# Folders


def small(root: Path, per_class: dict[str, int], start: int = 0) -> Path:
    return class_folders(root, per_class, start, height=40, width=40)


def hidden(*parts: str) -> Callable[[Path], None]:
    return lambda root: save(root.joinpath(*parts), 90, height=40, width=40) and None


def written(*parts: str) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        root.joinpath(*parts).parent.mkdir(parents=True, exist_ok=True)
        root.joinpath(*parts).write_text("junk")

    return write


@pytest.mark.parametrize(
    "leave",
    [
        pytest.param(hidden(".ipynb_checkpoints", "0-checkpoint.jpg"), id="open-mmlab/mmpretrain#507"),
        pytest.param(hidden(".ipynb_checkpoints", "a", "0.jpg"), id="pytorch/vision#2831"),
        pytest.param(written(".DS_Store"), id="pytorch/vision#109"),
        pytest.param(written("a", ".DS_Store"), id="pytorch/vision#79"),
        pytest.param(hidden(".hidden", "0.jpg"), id="tensorflow/tensorflow#46595"),
        pytest.param(hidden("a", ".ipynb_checkpoints", "0-checkpoint.jpg"), id="bghira/SimpleTuner#94"),
        pytest.param(written(".ipynb_checkpoints", "notes.txt"), id="facebookresearch/DomainBed#90"),
        pytest.param(written("b", "Thumbs.db"), id="GoGoDuck912/Self-Correction-Human-Parsing#37"),
        pytest.param(lambda root: (root / "b" / "folder.jpg").mkdir(), id="huggingface/autotrain-advanced#264"),
    ],
)
def test_what_tools_leave_in_folders_is_neither_class_nor_image(leave: Callable[[Path], None], tmp_path: Path) -> None:
    small(tmp_path, {"a": 4, "b": 4})
    leave(tmp_path)
    inventory = sources.find(str(tmp_path))
    assert inventory.classes == ("a", "b")
    assert sorted(name for images in inventory.splits.values() for name in images.names) == [
        f"{name}/{number}.jpg" for name in "ab" for number in range(4)
    ]


def test_a_class_folder_without_images_is_named(tmp_path: Path) -> None:
    """pytorch/vision#4925"""
    small(tmp_path, {"a": 4, "b": 4})
    (tmp_path / "empty").mkdir()
    assert any("empty" in line for line in sources.find(str(tmp_path)).notices)


def stage(tmp_path: Path, source: Path) -> tuple[Result, Data]:
    run = Run(tmp_path / "run")
    prepare(run, config.build({"data": {"size": 32}}), str(source), force=True)
    result = run.result("data")
    assert result is not None
    return result, load(run)


def copy(source: Path, *targets: Path) -> None:
    for target in targets:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())


def pixels(images: object) -> list[bytes]:
    return [images.decode(i).tobytes() for i in range(len(images))]  # type: ignore[attr-defined, arg-type]


@pytest.mark.parametrize(
    "copies",
    [
        pytest.param({"test/a/0.jpg": "train/a/copy.jpg"}, id="tqwei05/PlantSeg#11"),
        pytest.param({"train/a/0.jpg": "test/a/again.jpg"}, id="abdoelsayed2016/TNCR_Dataset#3"),
        pytest.param({f"test/a/{n}.jpg": f"train/a/n{n}.jpg" for n in range(3)}, id="elcronos/COVID-19#51"),
        pytest.param(
            {f"test/{c}/{n}.jpg": f"train/{c}/t{n}.jpg" for c in "ab" for n in range(3)}, id="stefyste/RIAWELC#2"
        ),
    ],
)
def test_no_test_image_is_trained_on(copies: dict[str, str], tmp_path: Path) -> None:
    source = tmp_path / "images"
    small(source / "train", {"a": 6, "b": 6})
    small(source / "test", {"a": 3, "b": 3}, 50)
    for original, target in copies.items():
        copy(source / original, source / target)
    _, data = stage(tmp_path, source)
    assert not set(pixels(data.train)) & set(pixels(data.test))
    assert len(data.train) >= 11


def test_one_picture_in_two_classes_is_told_with_both_names(tmp_path: Path) -> None:
    """jhl-Det/CVA-Net#27: frames that are benign and malignant."""
    source = small(tmp_path / "images", {"benign": 8, "malignant": 8})
    copy(source / "benign" / "2.jpg", source / "malignant" / "30.jpg")
    result, _ = stage(tmp_path, source)
    assert result.details["contradictions"] == [["benign/2.jpg", "malignant/30.jpg"]]


def test_a_test_split_counts_distinct_pictures(tmp_path: Path) -> None:
    """PatrykChrabaszcz/Imagenet32_Scripts#8: 5,000 of 50,000 validation images twice."""
    source = tmp_path / "images"
    small(source / "train", {"a": 6, "b": 6})
    small(source / "test", {"a": 4, "b": 4}, 50)
    for number in range(3):
        copy(source / "test" / "a" / "0.jpg", source / "test" / "a" / f"copy{number}.jpg")
    _, data = stage(tmp_path, source)
    found = pixels(data.test)
    assert len(found) == len(set(found)) == 8


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(("猫", "狗"), id="NVIDIA/DIGITS#1836"),
        pytest.param(("café", "größe"), id="NVIDIA/DIGITS#353"),
        pytest.param(("été à", "çeçi!!"), id="python-xmp-toolkit/python-xmp-toolkit#36"),
        pytest.param(("a b", "c  d"), id="NVIDIA/DIGITS#114"),
        pytest.param(("100%", "#1"), id="jfisteus/eyegrade#71"),
    ],
)
def test_classes_keep_their_names(names: tuple[str, str], tmp_path: Path) -> None:
    source = small(tmp_path / "bilder ü", dict.fromkeys(names, 6))
    _, data = stage(tmp_path, source)
    assert set(data.classes) == set(names) and len(data.train) + len(data.test) == 12


# Shards


@pytest.mark.parametrize(
    "members",
    [
        pytest.param([("dir/base.png", 0), ("dir/base.cls", "a"), ("dir/base.png", 1)], id="webdataset/webdataset#157"),
        pytest.param([("x.png", 0), ("x.cls", "a"), ("x.cls", "b")], id="webdataset/webdataset#327"),
    ],
)
def test_two_members_of_one_name_are_refused(members: list[tuple[str, int | str]], tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", [(name, png(v) if isinstance(v, int) else v.encode()) for name, v in members])
    with pytest.raises(UserError):
        labels(path)


def shard(tmp_path: Path, *members: tuple[str, int | str]) -> dict[str, str]:
    return labels(
        tar(tmp_path / "a.tar", [(name, png(v) if isinstance(v, int) else v.encode()) for name, v in members])
    )


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        pytest.param(
            [(f"S_02.VE{n}.{end}", n if end == "png" else "ab"[n % 2]) for n in range(4) for end in ("png", "cls")],
            {f"S_02.VE{n}.png": "ab"[n % 2] for n in range(4)},
            id="webdataset/webdataset#288",
        ),
        pytest.param(
            [*((f"{n}.png", n) for n in range(4)), *((f"{n}.cls", "ab"[n % 2]) for n in range(4))],
            {f"{n}.png": "ab"[n % 2] for n in range(4)},
            id="webdataset/webdataset#258",
        ),
        pytest.param(
            [*((f"{n}.cls", "ab"[n % 2]) for n in range(4)), *((f"{n}.png", n) for n in range(4))],
            {f"{n}.png": "ab"[n % 2] for n in range(4)},
            id="webdataset/webdataset#140",
        ),
        pytest.param(
            [(f"db-{n}/0.{end}", n if end == "png" else "ab"[n % 2]) for n in range(4) for end in ("png", "cls")],
            {f"db-{n}/0.png": "ab"[n % 2] for n in range(4)},
            id="webdataset/webdataset#11",
        ),
        pytest.param(
            [
                ("0.png", 0),
                ("1.png", 1),
                ("0.cls", "a"),
                ("1.cls", "b"),
                ("2.png", 2),
                ("3.png", 3),
                ("3.cls", "b"),
                ("2.cls", "a"),
            ],
            {"0.png": "a", "1.png": "b", "2.png": "a", "3.png": "b"},
            id="ray-project/ray#65044",
        ),
        pytest.param(
            [(f"{'k' * 150}{n}.{end}", n if end == "png" else "ab"[n % 2]) for n in range(4) for end in ("png", "cls")],
            {f"{'k' * 150}{n}.png": "ab"[n % 2] for n in range(4)},
            id="webdataset/webdataset#428",
        ),
        pytest.param(
            [
                ("README", "no dot"),
                *((f"{n}.{e}", n if e == "png" else "ab"[n % 2]) for n in range(4) for e in ("png", "cls")),
            ],
            {f"{n}.png": "ab"[n % 2] for n in range(4)},
            id="webdataset/webdataset#407",
        ),
    ],
)
def test_every_member_has_the_label_beside_it_wherever_it_stands(
    members: list[tuple[str, int | str]], expected: dict[str, str], tmp_path: Path
) -> None:
    assert shard(tmp_path, *members) == expected


def test_a_text_beside_an_image_is_no_label(tmp_path: Path) -> None:
    """mlfoundations/open_clip#480: ``sample.input.jpg`` beside ``sample.outputs.txt``."""
    found = shard(
        tmp_path,
        *((f"s{n}.{e}", n if e == "input.png" else "a cat") for n in range(4) for e in ("input.png", "outputs.txt")),
    )
    assert found == {f"s{n}.input.png": "" for n in range(4)}


def test_names_may_come_again_in_other_shards(tmp_path: Path) -> None:
    """webdataset/webdataset#100, #327: each file has the label of its own shard."""
    for number, label in enumerate("ab"):
        members = [
            (f"{n}.{e}", png(10 * number + n) if e == "png" else label.encode())
            for n in range(3)
            for e in ("png", "cls")
        ]
        tar(tmp_path / f"{number}.tar", members)
    inventory = sources.find(str(tmp_path))
    (images,) = inventory.splits.values()
    assert [inventory.classes[i] for i in images.labels.tolist()] == ["a"] * 3 + ["b"] * 3
    assert len({images.decode(i).tobytes() for i in range(6)}) == 6
