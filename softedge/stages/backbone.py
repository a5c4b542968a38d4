"""``softedge backbone``: the pretrained backbone for those who train elsewhere."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from softedge.export.hooks import write
from softedge.stages.opening import reopen


def backbone(run: str | PathLike[str], framework: str = "timm", out: Path | None = None) -> Path:
    """Write the pretrained backbone as a checkpoint of timm, torchvision, Detectron2 or MMDetection."""
    return write(reopen(run)[0], framework, out)
