"""Fifty photos as users have them: turned, transparent, wide, tiny, in every mode and with damaged metadata."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pictures import photo
from PIL import Image

_ORIENTATION = 0x0112


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[_ORIENTATION] = orientation
    return exif


def odd_photos(folder: Path) -> list[Path]:
    """Write the photos into ``folder``; the names say what is odd."""
    folder.mkdir(parents=True, exist_ok=True)
    made: list[Path] = []

    def save(name: str, image: Image.Image, **options: object) -> None:
        made.append(folder / name)
        image.save(made[-1], **options)

    picture = Image.fromarray(photo(0, 90, 130))
    for orientation in (1, 2, 3, 4, 5, 6, 7, 8, 0, 9):
        save(f"turned-{orientation}.jpg", picture, quality=92, exif=_exif(orientation))
    save("damaged-exif.jpg", picture, exif=b"Exif\x00\x00II*\x00\xff\xff\x00\x00")
    save("cut-exif.jpg", picture, exif=b"Exif\x00\x00MM")
    save("progressive.jpg", picture, progressive=True, quality=70)
    save("progressive-turned.jpg", picture, progressive=True, exif=_exif(6))
    save("full-colour.jpg", picture, subsampling=0, quality=95)
    save("quarter-colour.jpg", picture, subsampling=2, quality=95)
    save("coarse.jpg", picture, quality=5)
    save("grey.jpg", picture.convert("L"))
    save("grey-turned.jpg", picture.convert("L"), exif=_exif(8))
    save("commented.jpg", picture, comment=b"\xff\xe1 not a segment", exif=_exif(3))
    rng = np.random.default_rng(1)
    alpha = Image.fromarray(rng.integers(0, 256, (90, 130), dtype=np.uint8))
    transparent = picture.copy()
    transparent.putalpha(alpha)
    save("transparent.png", transparent)
    save("opaque.png", picture.convert("RGBA"))
    grey = picture.convert("L")
    grey.putalpha(alpha)
    save("grey-transparent.png", grey)
    save("grey.png", picture.convert("L"))
    save("palette.png", picture.convert("P", palette=Image.Palette.ADAPTIVE))
    save("palette-transparent.png", picture.convert("P", palette=Image.Palette.ADAPTIVE), transparency=3)
    save("colour-key.png", Image.fromarray(photo(3) // 64 * 64), transparency=(64, 64, 64))
    save("two-levels.png", picture.convert("1"))
    save("plain.bmp", picture)
    save("plain.gif", picture)
    save("moving.gif", picture.quantize(), save_all=True, append_images=[picture.quantize(16)])
    for seed, (height, width) in enumerate(
        [(1, 1), (1, 50), (50, 1), (2, 3), (20, 400), (400, 20), (32, 32), (24, 24), (32, 33), (33, 32), (31, 37)]
    ):
        save(f"{height}x{width}.png", Image.fromarray(photo(seed, max(height, 2), max(width, 2))[:height, :width]))
    save("noise.png", Image.fromarray(rng.integers(0, 256, (97, 61, 3), dtype=np.uint8)))
    save("black.png", Image.new("RGB", (40, 30)))
    save("white.png", Image.new("RGB", (30, 40), "white"))
    save("large.png", Image.fromarray(photo(7, 700, 900)))
    save("turned.png", picture, exif=_exif(6))
    save("cmyk.jpg", picture.convert("CMYK"))
    save("deep.png", Image.fromarray((rng.integers(0, 65536, (40, 50))).astype(np.uint16)))
    save("white-is-zero.tif", Image.fromarray((rng.integers(0, 65536, (40, 50))).astype(np.uint16)), tiffinfo={262: 0})
    return made


# What decoders for apps leave to the app or do their own way: Exif outside JPEG, CMYK, more than 8 bits, TIFF.
UNUSUAL = ("turned.png", "cmyk.jpg", "deep.png", "white-is-zero.tif")
