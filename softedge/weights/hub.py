"""timm's pretrained weights from the Hugging Face hub: from its cache, or downloaded where the hub answers."""

from __future__ import annotations

import functools
import os
import threading
import urllib.error
import urllib.request
from pathlib import Path

from torch import Tensor

from softedge.errors import UserError

SECONDS = 3.0  # to answer; without a network the hub's own client tries for minutes


class NotAvailable(UserError):
    """The hub has no weights for this network, or cannot be reached; the message is the reason."""


def state(name: str) -> dict[str, Tensor]:
    """The tensors of timm's pretrained ``name`` without its classifier; NotAvailable with the reason."""
    import timm

    from softedge.weights import files

    repository = _repository(name)
    cached = _cached(repository)
    if cached is not None:
        return files.read_state(cached)
    why_not = unavailable(name)
    if why_not:
        raise NotAvailable(why_not)
    try:
        net = timm.create_model(name, pretrained=True, num_classes=0)
    except Exception as error:  # timm and the hub raise many kinds when a download fails
        raise NotAvailable(f"timm could not fetch {name} ({type(error).__name__})") from error
    return dict(net.state_dict())


def unavailable(name: str) -> str:
    """Why pretrained weights of ``name`` cannot be had, in a few words; "" when they can."""
    try:
        repository = _repository(name)
    except NotAvailable as error:
        return str(error)
    if _cached(repository) is not None:
        return ""
    if _offline():
        return f"timm could not fetch {name}: HF_HUB_OFFLINE is set and the weights are not in the cache"
    if not answers(_endpoint()):
        return f"timm could not fetch {name}: {_endpoint()} did not answer within {SECONDS:g} s"
    return ""


def _repository(name: str) -> str:
    import timm

    settings = timm.get_pretrained_cfg(name)
    if settings is None or not settings.hf_hub_id:
        raise NotAvailable(f"timm has no pretrained weights of {name}")
    return str(settings.hf_hub_id)


def _cached(repository: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    for file in ("model.safetensors", "pytorch_model.bin"):
        path = try_to_load_from_cache(repository, file)
        if isinstance(path, str):
            return Path(path)
    return None


def _offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


@functools.lru_cache(maxsize=8)
def answers(address: str, seconds: float = SECONDS) -> bool:
    """Whether a server answers at ``address`` in time, through the proxies of the environment. Asked once a process."""
    answered = threading.Event()

    def ask() -> None:
        try:
            with urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=seconds):
                answered.set()
        except urllib.error.HTTPError as error:
            if error.code < 500:
                answered.set()
        except (OSError, ValueError):
            pass

    # In a thread: looking up a name can hang for longer than any timeout of the connection.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return answered.is_set()
