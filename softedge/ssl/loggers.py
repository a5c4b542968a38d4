"""Optional places for the numbers of metrics.jsonl: TensorBoard, Weights & Biases, MLflow."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from softedge.config import Recipe
from softedge.errors import UserError

Log = Callable[[Mapping[str, Any]], None]

_PACKAGES = {
    "tensorboard": ("torch.utils.tensorboard", "tensorboard"),
    "wandb": ("wandb", "wandb"),
    "mlflow": ("mlflow",) * 2,
}


def open_all(names: Iterable[str], folder: Path, recipe: Recipe) -> list[Log]:
    """One function per name that takes a journal entry. UserError when a package is missing.

    folder: the stage's; TensorBoard's files and W&B's local ones go below it, MLflow follows MLFLOW_TRACKING_URI.
    A resumed run goes on in the same W&B and MLflow run (found again by a file in ``folder``).
    """
    return [_OPEN[name](_load(name), folder, recipe) for name in names]


def _load(name: str) -> Any:
    module, package = _PACKAGES[name]
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(f"ssl.log = '{name}' needs {package}; install it with: pip install {package}") from error


def _numbers(entry: Mapping[str, Any]) -> dict[str, float]:
    return {k: v for k, v in entry.items() if isinstance(v, int | float) and k != "step"}


def _remembered(path: Path, make: Callable[[], str]) -> str:
    if not path.exists():
        path.write_text(make())
    return path.read_text()


def _tensorboard(module: Any, folder: Path, recipe: Recipe) -> Log:
    writer = module.SummaryWriter(str(folder / "tensorboard"))

    def log(entry: Mapping[str, Any]) -> None:
        for name, value in _numbers(entry).items():
            writer.add_scalar(name, value, entry["step"])
        writer.flush()

    return log


def _wandb(module: Any, folder: Path, recipe: Recipe) -> Log:
    identity = _remembered(folder / "wandb.id", lambda: module.util.generate_id())
    module.init(
        project="softedge",
        name=recipe.name,
        id=identity,
        resume="allow",
        dir=str(folder),
        config=recipe.model_dump(mode="json"),
    )
    return lambda entry: module.log(_numbers(entry), step=entry["step"])


def _mlflow(module: Any, folder: Path, recipe: Recipe) -> Log:
    module.set_experiment("softedge")

    def start() -> str:
        identity = module.start_run(run_name=recipe.name).info.run_id
        module.log_params(
            {f"{s}.{k}": v for s, part in recipe.section("ssl", "optim").items() for k, v in part.items()}
        )
        module.end_run()
        return identity

    identity = _remembered(folder / "mlflow.id", start)
    module.start_run(run_id=identity)
    return lambda entry: module.log_metrics(_numbers(entry), step=entry["step"])


_OPEN: dict[str, Callable[[Any, Path, Recipe], Log]] = {"tensorboard": _tensorboard, "wandb": _wandb, "mlflow": _mlflow}
