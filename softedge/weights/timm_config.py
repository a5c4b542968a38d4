"""``config.json`` beside a weights file, as timm and the Hugging Face hub write it: how the network was built."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from softedge.files import read_text

UNREADABLE = (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError)
# Arguments of timm.create_model that say nothing about the function, or what the weights say themselves.
_NO_OPTIONS = ("num_classes", "in_chans", "checkpoint_path", "cache_dir", "features_only", "scriptable", "exportable")


def config_beside(path: Path, file: str = "config.json") -> Path:
    """Where the settings of a file are: beside it, or above it where its folder has the name of its suffix, as a hub
    keeps the files of one format."""
    above, beside = path.parent.parent / file, path.parent / file
    of_format = path.parent.name == path.suffix.removeprefix(".")
    return above if of_format and not beside.is_file() and above.is_file() else beside


def read_beside(path: Path, file: str) -> Mapping[str, Any] | None:
    """The content of a file of settings beside ``path``; None where there is none.  Raises one of UNREADABLE."""
    config = config_beside(path, file)
    if not config.is_file():
        return None
    content = json.loads(read_text(config, "utf-8"))
    if not isinstance(content, dict):
        raise TypeError("not an object")
    return content


def settings_beside(path: Path, name: str | None) -> Mapping[str, Any] | None:
    """The content of ``config.json`` beside weights of timm's ``name`` (None: of any network).

    None where there is none, or it describes another architecture.  Raises one of UNREADABLE for a damaged one.
    """
    content = read_beside(path, "config.json")
    if content is None or name is None:
        return content
    other = content.get("architecture", name).split(".")[0] != name.split(".")[0]
    return None if other else content


def options_beside(path: Path, name: str, net: nn.Module) -> dict[str, Any]:
    """How the network differs from timm's default for ``name``: ``model_args``, and ``global_pool`` where ``net``, the
    default, pools in another way.  With the same names and shapes of tensors it would be another function.

    A damaged file says nothing: who reads the preprocessing in it refuses it.
    """
    try:
        content = settings_beside(path, name) or {}
        options, pool = dict(content.get("model_args") or {}), content.get("global_pool")
    except UNREADABLE:
        return {}
    options = {key: v for key, v in options.items() if key not in _NO_OPTIONS and not key.startswith("pretrained")}
    if isinstance(pool, str) and pool and (own := _pooling(net)) and pool != own:
        options.setdefault("global_pool", pool)
    return options


def _pooling(net: nn.Module) -> str:
    """How the network makes one row of features of its last map, as timm calls it; "" where it does not say."""
    own = getattr(net, "global_pool", None)
    pools = [own if isinstance(own, str) else "", *(getattr(module, "pool_type", "") for module in net.modules())]
    return next((pool for pool in pools if isinstance(pool, str) and pool), "")
