"""``preprocessor_config.json`` beside a weights or model file, as transformers writes it: how images are prepared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FILE = "preprocessor_config.json"
_RESAMPLING = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")  # Pillow's numbers
_NOT_DONE = {
    "do_flip_channel_order": "channels in the order blue, green, red",
    "do_color_quantize": "colours by their number",
    "do_pad": "a border around images",
    "do_reduce_labels": "labels of pixels",
    "include_top": "a second normalisation",
    "do_splitting": "images in parts",
    "do_image_splitting": "images in parts",
}
_SQUASHED_FROM = 384  # pixels from which ConvNeXt's images are squashed, not cropped
_LEVIT = 224 / 256  # side of LeViT's crop / shorter side


def as_of_timm(content: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The same settings by timm's names; None where it says nothing about them.  ValueError for what is not done here.

    Pixels there are y = (x r - mean) / std, r: rescale_factor; here (x / 255 - mean) / std.
    """
    if isinstance(own := content.get("pretrained_cfg"), Mapping):  # timm's networks in transformers
        return own
    for key, what in _NOT_DONE.items():
        if content.get(key):
            raise ValueError(f"{key} = true, {what}, is not done here")
    normalises = content.get("do_normalize", "image_mean" in content)
    if not normalises and not {"do_rescale", "rescale_factor", "do_normalize"} & content.keys():
        return None
    factor = float(content.get("rescale_factor", 1 / 255)) if content.get("do_rescale", True) else 1.0
    if not factor > 0:
        raise ValueError(f"rescale_factor is {factor:g}")
    offset = 1.0 if content.get("rescale_offset") else 0.0
    if normalises and not (content.get("image_mean") and content.get("image_std")):
        raise ValueError("do_normalize = true, and no image_mean and image_std")
    mean, std = (content["image_mean"], content["image_std"]) if normalises else (0.0, 1.0)
    mean, std = ([each] if isinstance(each, int | float) else list(each) for each in (mean, std))
    number = content.get("resample", 2)
    return {
        "mean": [round((float(value) + offset) / (255 * factor), 7) for value in mean],
        "std": [round(float(value) / (255 * factor), 7) for value in std],
        "interpolation": _RESAMPLING[number] if number in range(len(_RESAMPLING)) else str(number),
        **_sides(content),
    }


def _sides(content: Mapping[str, Any]) -> dict[str, Any]:
    """Size, share of the crop, and whether images are squashed."""
    crops, resizes = bool(content.get("do_center_crop")), content.get("do_resize", True)
    shorter, squashed = _sizes(content.get("size") if resizes else None)
    cropped, _ = _sizes(content.get("crop_size") if crops else None)
    final = cropped or shorter
    if not final:
        return {}
    share = min(1.0, final[0] / shorter[0]) if shorter and cropped else float(content.get("crop_pct") or 1.0)
    kind = str(content.get("image_processor_type") or content.get("feature_extractor_type") or "")
    if kind.startswith("ConvNext") and final[0] >= _SQUASHED_FROM:
        share, squashed = 1.0, True
    elif kind.startswith("Levit"):
        share = _LEVIT
    return {"input_size": [3, *final], "crop_pct": share, "crop_mode": "squash" if squashed else "center"}


def _sizes(size: Any) -> tuple[tuple[int, int] | None, bool]:
    """Height and width in pixels, and whether images are squashed to them."""
    if not size:
        return None, False
    if isinstance(size, int):  # as transformers wrote it until 2022: both sides
        return (size, size), True
    if isinstance(size, Mapping) and "shortest_edge" in size:
        return (int(size["shortest_edge"]),) * 2, False
    if isinstance(size, Mapping) and {"height", "width"} <= size.keys():
        return (int(size["height"]), int(size["width"])), True
    raise ValueError(f"size is {size}; height and width, or shortest_edge, are done here")
