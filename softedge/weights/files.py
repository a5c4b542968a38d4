"""Weights files as others write them, read without running any code that they hold."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from softedge.errors import UserError
from softedge.progress import say
from softedge.weights import unpickling

# Averaged weights, better than the trained ones.
AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "params_ema", "ema")
NESTED = ("state_dict", "model_state_dict", "model", "net", "module", "params")
CHECKSUM = "sha256"  # of the weights and their description, in files that softedge writes
WRAPPERS = ("module.", "_orig_mod.", "model.")  # DDP, torch.compile and trainers' own


def read_state(path: Path) -> dict[str, Tensor]:
    """The state dict (name -> tensor) in a .safetensors or .pth file; UserError, one line, for anything else.

    Checkpoints are looked into (``state_dict``, ``model``, ...); averaged weights are preferred, and a line says so.
    A prefix that every name carries (``module.``, ``_orig_mod.``, ``model.``) is taken off.
    """
    if not path.is_file():
        raise UserError(f"weights file {path} does not exist")
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty (0 bytes); copy or download it again")
    content = _read(path)
    state = _state_in(content, path)
    if state is None:
        inside = (
            [f"'{key}'" for key, value in content.items() if _state_in(value, path)]
            if isinstance(content, Mapping)
            else []
        )
        there = f"; it has some inside {', '.join(inside)}: save one of them alone" if inside else ""
        raise UserError(f"{path} holds no state dict (name -> tensor){there}")
    if "n_averaged" in state:  # torch.optim.swa_utils.AveragedModel's counter
        del state["n_averaged"]
    return unwrapped(state)


def _read(path: Path) -> Any:
    try:
        if path.suffix == ".safetensors":
            return _read_safetensors(path)
        return unpickling.read(path)
    except Exception as error:  # safetensors and torch raise their own kinds for damaged files
        why = unpickling.why_unread(error)
        if path.suffix != ".safetensors" and not _from_torch(path):
            why = "neither .pth nor .safetensors; an .onnx file is quantized by: softedge quantize FILE"
        raise UserError(f"{path} cannot be read as weights ({why})") from error


def _from_torch(path: Path) -> bool:
    """Whether a file begins as torch.save begins one: a zip archive, before torch 1.6 a pickle."""
    with open(path, "rb") as file:
        return file.read(4).startswith((b"PK\x03\x04", b"\x80"))


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        about = file.metadata() or {}
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dictionary)
    described, checksum = _checksum(about)
    if checksum and checksum != _digest(state, described):
        raise ValueError("damaged: its weights do not match their checksum")
    return state


def _checksum(about: Mapping[str, str]) -> tuple[str, str]:
    """The description that was hashed with the weights, and the checksum; "" where the file has none."""
    described = about.get("softedge", "")
    if CHECKSUM in about:  # as files were written until November 2026
        return described, about[CHECKSUM]
    with contextlib.suppress(ValueError, AttributeError):
        values = json.loads(described)
        checksum = values.pop(CHECKSUM, "")
        return json.dumps(values), checksum
    return described, ""


def serialized(state: dict[str, Tensor], description: dict[str, Any]) -> bytes:
    """A safetensors file of ``state`` with its description and a checksum; the same bytes for the same content."""
    from safetensors.torch import save

    # One key: safetensors writes several in an order that changes from call to call.
    about = {**description, CHECKSUM: _digest(state, json.dumps(description))}
    return bytes(save(state, metadata={"softedge": json.dumps(about)}))


def _digest(state: Mapping[str, Tensor], about: str) -> str:
    """SHA-256 of the names, kinds, shapes and bytes of all tensors, and of the description beside them."""
    result = hashlib.sha256(about.encode())
    for name, value in sorted(state.items()):
        result.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        result.update(value.contiguous().reshape(-1).view(torch.uint8).numpy())
    return result.hexdigest()


def _state_in(content: Any, path: Path) -> dict[str, Tensor] | None:
    if not isinstance(content, Mapping):
        return None
    states = {key: state for key in (*AVERAGED, *NESTED) if (state := _state_in(content.get(key), path))}
    if states:
        chosen = next(iter(states))
        _name_others(content, states, chosen, path)
        return states[chosen]
    if content and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items()):
        return dict(content)
    return None


def _name_others(content: Mapping[Any, Any], states: dict[str, dict[str, Tensor]], chosen: str, path: Path) -> None:
    """Say which weights of the network a checkpoint has beside the ``chosen`` ones.

    UserError where two of them differ and neither is an average: nobody says which is meant.
    """
    used = unwrapped(states[chosen])
    trained = [key for key in states if key in NESTED]
    if chosen in AVERAGED and trained:
        say(f"weights: {path} holds averaged weights ('{chosen}') beside the trained ones; the averaged are used")
        content = {key: value for key, value in content.items() if key not in trained}
    others = {key: states.get(key) or _state_in(content[key], path) or {} for key in content if key != chosen}
    differ = [str(key) for key, other in others.items() if _other_weights(unwrapped(other), used)]
    for key in differ:
        if key in trained:
            raise UserError(
                f"{path} holds two networks, '{chosen}' and '{key}'; save the state_dict of one of them alone"
            )
        say(f"weights: {path} holds other weights of the network ('{key}'); those in '{chosen}' are used")


def _other_weights(other: Mapping[str, Tensor], used: Mapping[str, Tensor]) -> bool:
    """Whether ``other`` has most of the names of ``used``, and other values."""
    both = other.keys() & used.keys()
    same = (other[name].shape == used[name].shape and bool((other[name] == used[name]).all()) for name in both)
    return 2 * len(both) > len(used) and not all(same)


def unwrapped(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without the prefixes of wrappers that all names carry."""
    while prefix := next((p for p in WRAPPERS if state and all(key.startswith(p) for key in state)), None):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def description(path: Path) -> dict[str, Any]:
    """What softedge wrote about a network into its safetensors file; empty for other files."""
    from safetensors import safe_open

    if path.suffix != ".safetensors" or not path.is_file():
        return {}
    # A damaged file is refused when its tensors are read.
    with contextlib.suppress(Exception), safe_open(path, framework="pt") as file:
        return dict(json.loads((file.metadata() or {})["softedge"]))
    return {}
