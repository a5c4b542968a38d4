"""Every kind of file that people have becomes the same upright RGB, or a reason why not."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from pictures import turned
from PIL import Image

from softedge.data import decoding
from softedge.data.decoding import BadImage, decode, prepare
from softedge.records import InputSpec


def picture(height: int = 40, width: int = 60) -> np.ndarray:
    """A smooth picture without symmetry: JPEG keeps it within a few levels."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 / width, y * 255 / height, 255 - x * y * 255 / (height * width)], 2).astype(np.uint8)


def encoded(image: Image.Image | np.ndarray, image_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def far(a: np.ndarray, b: np.ndarray) -> int:
    assert a.shape == b.shape and a.dtype == b.dtype == np.uint8
    return int(np.abs(a.astype(int) - b.astype(int)).max())


@pytest.mark.parametrize("image_format", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_formats_decode_to_the_same_pixels(image_format: str) -> None:
    assert far(decode(encoded(picture(), image_format)), picture()) == 0


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("shape", [(40, 60), (1, 1), (17, 33), (33, 1)])
def test_fast_jpeg_gives_the_same_bits_as_pillow(subsampling: int, shape: tuple[int, int]) -> None:
    data = encoded(picture(*shape), "JPEG", quality=80, subsampling=subsampling)
    assert far(decode(data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))) == 0


def test_without_simplejpeg_the_result_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(picture(), "JPEG")
    fast = decode(data)
    monkeypatch.setattr(decoding, "_decode_jpeg", lambda data, at_least: None)
    assert far(decode(data), fast) == 0


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("image_format", ["JPEG", "PNG"])
def test_exif_orientation_is_honoured(orientation: int, image_format: str) -> None:
    stored = Image.fromarray(picture())
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(stored, image_format, exif=exif, **({"quality": 95} if image_format == "JPEG" else {}))
    upright = turned(stored, orientation)
    assert far(decode(data), np.asarray(upright)) <= 12


def test_greyscale_jpeg_and_png_have_three_equal_channels() -> None:
    grey = Image.fromarray(picture()).convert("L")
    for image_format, tolerance in (("PNG", 0), ("JPEG", 6)):
        image = decode(encoded(grey, image_format))
        assert far(image, np.asarray(grey.convert("RGB"))) <= tolerance
        assert (image[..., 0] == image[..., 1]).all() and (image[..., 1] == image[..., 2]).all()


def test_cmyk_jpeg_has_its_colours_and_not_their_negative() -> None:
    cmyk = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # pure red ink
    red = decode(encoded(cmyk, "JPEG", quality=95))[8, 8]
    assert red[0] > 240 and red[1] < 16 and red[2] < 16


def test_sixteen_bit_greyscale_png_is_scaled_and_not_clipped() -> None:
    values = np.array([[0, 257, 128 * 257, 65535]], np.uint16)
    assert decode(encoded(Image.fromarray(values), "PNG"))[0, :, 0].tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize("highest", [1.0, 255.0])
def test_float_tiff_is_read_by_its_range(highest: float) -> None:
    values = (np.linspace(0, 1, 16).reshape(4, 4) * highest).astype(np.float32)
    assert (
        far(decode(encoded(Image.fromarray(values), "TIFF"))[..., 0], np.round(values * 255 / highest).astype("uint8"))
        <= 1
    )


def test_palette_image_has_its_colours() -> None:
    palette = Image.fromarray(picture()).quantize(16)
    assert far(decode(encoded(palette, "PNG")), np.asarray(palette.convert("RGB"))) == 0


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_laid_on_white(mode: str) -> None:
    if mode == "P":
        image = Image.new("P", (2, 1))
        image.putpalette([0, 0, 0, 200, 0, 0])
        image.putdata([0, 1])
        data = encoded(image, "PNG", transparency=0)
    else:
        clear, solid = ((0, 0, 0, 0), (200, 0, 0, 255)) if mode == "RGBA" else ((0, 0), (200, 255))
        image = Image.new(mode, (2, 1), clear)
        image.putpixel((1, 0), solid)
        data = encoded(image, "PNG")
    pixels = decode(data)[0]
    assert pixels[0].tolist() == [255, 255, 255]
    assert pixels[1].tolist() == ([200, 200, 200] if mode == "LA" else [200, 0, 0])


@pytest.mark.parametrize("image_format", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame_is_taken(image_format: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    options = {"lossless": True} if image_format == "WEBP" else {}
    data = encoded(frames[0], image_format, save_all=True, append_images=frames[1:], **options)
    assert decode(data)[4, 4].tolist() == [255, 0, 0]


@pytest.mark.parametrize("image_format", ["JPEG", "PNG"])
def test_a_truncated_file_is_bad_and_says_so(image_format: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encoded(noise, image_format)
    with pytest.raises(BadImage, match="truncated"):
        decode(data[: len(data) // 2])


@pytest.mark.parametrize("data", [b"", b"hello, this is text", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n" + bytes(40)])
def test_what_is_no_image_is_bad_with_a_reason(data: bytes) -> None:
    with pytest.raises(BadImage, match=r"empty|known format|truncated|damaged"):
        decode(data)


def test_a_decompression_bomb_is_bad_before_it_is_unpacked() -> None:
    header = encoded(Image.new("1", (8, 8)), "PNG")
    huge = header.replace((8).to_bytes(4, "big") * 2, (60000).to_bytes(4, "big") * 2, 1)
    fixed = bytearray(huge)
    import zlib

    fixed[29:33] = zlib.crc32(bytes(fixed[12:29])).to_bytes(4, "big")
    with pytest.raises(BadImage, match="limit"):
        decode(bytes(fixed))


def test_a_missing_file_is_bad_with_the_systems_reason(tmp_path: Path) -> None:
    with pytest.raises(BadImage, match="No such file"):
        decode(tmp_path / "absent.jpg")


def test_a_smaller_jpeg_keeps_the_asked_number_of_pixels() -> None:
    data = encoded(picture(400, 600), "JPEG", quality=95)
    assert decode(data, at_least=100).shape == (100, 150, 3)
    assert decode(data, at_least=101).shape == (150, 225, 3)
    assert decode(data, at_least=300).shape == (400, 600, 3)


SPEC = InputSpec(size=28, resize=32, mean=(0.5,) * 3, std=(0.5,) * 3)


@pytest.mark.parametrize("shape", [(40, 60), (61, 40), (33, 33), (32, 32), (10, 12), (1, 1)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_prepare_is_torchvisions_resize_and_centre_crop(shape: tuple[int, int], interpolation: str) -> None:
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

    spec = InputSpec(SPEC.size, SPEC.resize, SPEC.mean, SPEC.std, interpolation)  # type: ignore[arg-type]
    reference = Compose([Resize(32, InterpolationMode(interpolation)), CenterCrop(28)])(
        Image.fromarray(picture(*shape))
    )
    assert far(prepare(picture(*shape), spec), np.asarray(reference)) == 0


def test_a_picture_of_the_right_size_goes_through_unchanged() -> None:
    spec = InputSpec(32, 32, SPEC.mean, SPEC.std)
    assert far(prepare(picture(32, 32), spec), picture(32, 32)) == 0


def test_a_long_strip_is_prepared_without_growing() -> None:
    assert prepare(np.full((1, 100_000, 3), 7, np.uint8), SPEC).shape == (28, 28, 3)
    assert prepare(np.full((100_000, 1, 3), 7, np.uint8), SPEC).mean() == 7
