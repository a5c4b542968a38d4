"""What follows the training, and how it grows with the files, devices and presets that a recipe asks for.

A table, not a measurement: ``Format.seconds`` are those of one network on one machine.  They divide the minutes that a
plan counts for the files that are made by default (``planning``), which go with the machine.
"""

from __future__ import annotations

from softedge.bench.base import PRESETS
from softedge.config import Recipe

_ONCE = 30.0  # seconds: the network is traced, calibration images are drawn, the map and the report are made
_EACH = 2.0  # to start a file's runtime on a device, and to check the file


def share(recipe: Recipe) -> float:
    """What the files of a recipe take, those of the default one 1.0; UserError for an unknown format or precision."""
    return _seconds(recipe) / _seconds(Recipe())


def _seconds(recipe: Recipe) -> float:
    from softedge.stages.export import asked  # imports torch

    timing = len(recipe.bench.devices) * (PRESETS[recipe.bench.preset].min_seconds + _EACH)
    return _ONCE + sum(format_.typical_seconds(precision) + timing for format_, precision in asked(recipe))
