"""timm's pretrained weights from the Hugging Face hub: from its cache, or downloaded where the hub has them."""

from __future__ import annotations

import functools
import http.client
import os
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from softedge.errors import UserError

SECONDS = 3.0  # to answer; without a network the hub's own client tries for minutes
_FILES = ("model.safetensors", "pytorch_model.bin")


class NotAvailable(UserError):
    """The hub has no weights for this network, or cannot be reached; the message is the reason."""


def state(name: str) -> dict[str, Tensor]:
    """The tensors of timm's pretrained ``name`` without its classifier; NotAvailable with the reason."""
    from softedge.weights import files

    if why_not := unavailable(name):
        raise NotAvailable(why_not)
    cached = _cached(_repository(name))
    if cached is not None:
        return files.read_state(cached)
    return dict(_fetched(name).state_dict())  # in the cache under a name of its own


def unavailable(name: str) -> str:
    """Why pretrained weights of ``name`` cannot be had, in a few words; "" when they are here.

    They are downloaded now: a server that answers, a proxy or the page of a hotel's network, may have no file.
    """
    try:
        repository = _repository(name)
    except NotAvailable as error:
        return str(error)
    if _cached(repository) is not None:
        return ""
    if _offline():
        return f"timm could not fetch {name}: HF_HUB_OFFLINE is set and the weights are not in the cache"
    return _refused(name, repository, _endpoint()) or _not_downloaded(name)


def _refused(name: str, repository: str, endpoint: str) -> str:
    """Why ``endpoint`` does not give a file of the repository, in a few words; "" when it says that it would."""
    found = 404
    for file in _FILES:
        found = status(f"{endpoint}/{repository}/resolve/main/{file}")
        if found != 404:
            break
    if 200 <= found < 400:
        return ""
    what = f"answers {found} when asked for them" if found else f"did not answer within {SECONDS:g} s"
    return f"timm could not fetch {name}: {endpoint} {what}"


@functools.lru_cache(maxsize=8)
def _not_downloaded(name: str) -> str:
    """Why timm cannot download the weights of ``name``, in a few words; "" when it can. Tried once a process."""
    try:
        _fetched(name)
    except NotAvailable as error:
        return str(error)
    return ""


def _fetched(name: str) -> nn.Module:
    """timm's pretrained network without its classifier, downloaded where it has to be."""
    import timm

    try:
        net: nn.Module = timm.create_model(name, pretrained=True, num_classes=0)
    except Exception as error:  # timm and the hub raise many kinds when a download fails
        raise NotAvailable(f"timm could not fetch {name} ({type(error).__name__})") from error
    return net


def _repository(name: str) -> str:
    import timm

    settings = timm.get_pretrained_cfg(name)
    if settings is None or not settings.hf_hub_id:
        raise NotAvailable(f"timm has no pretrained weights of {name}")
    return str(settings.hf_hub_id)


def _cached(repository: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    for file in _FILES:
        path = try_to_load_from_cache(repository, file)
        if isinstance(path, str):
            return Path(path)
    return None


def _offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


class _Unfollowed(urllib.request.HTTPRedirectHandler):
    """Leaves a redirection as the answer: the hub sends its files from elsewhere."""

    def redirect_request(self, *_: Any) -> None:
        return None


@functools.lru_cache(maxsize=8)
def status(address: str, seconds: float = SECONDS) -> int:
    """What a server answers when asked for a file's head, through the proxies of the environment: an HTTP status.

    0 where there is no answer in time. Asked once a process.
    """
    answered: list[int] = []

    def ask() -> None:
        opener = urllib.request.build_opener(_Unfollowed)
        try:
            with opener.open(urllib.request.Request(address, method="HEAD"), timeout=seconds) as response:
                answered.append(response.status)
        except urllib.error.HTTPError as error:
            answered.append(error.code)
        except (OSError, ValueError, http.client.HTTPException):
            pass

    # In a thread: looking up a name can hang for longer than any timeout of the connection.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return answered[0] if answered else 0
