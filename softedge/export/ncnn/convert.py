"""A deployed network as ncnn files, by pnnx: a program of its own that reads TorchScript.

Everything that pnnx writes besides (files of its own, Python, ONNX) stays in a temporary folder.
"""

from __future__ import annotations

import errno
import importlib.util
import io
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from softedge.errors import UserError
from softedge.export.ncnn.network import Network
from softedge.export.quiet import quiet
from softedge.files import temporary_folder

if TYPE_CHECKING:
    from torch import Tensor

    from softedge.export.deployed import Deployed

LIMIT_S = 900.0  # of networks for boards the largest takes seconds
_SPACE = 1 << 16  # bytes free behind pnnx; on a full disk it leaves half a file and says that all went well


@contextmanager
def converted(deployed: Deployed, half: bool) -> Iterator[tuple[Network, Path]]:
    """The layers, and the file of their weights while the context lasts.  half: weights in fp16, else fp32.

    UserError where pnnx fails, or meets an operator that ncnn has not.
    """
    size = deployed.spec.size
    with temporary_folder("ncnn") as folder:
        _trace(deployed, folder / "network.pt")
        _pnnx(folder, f"inputshape=[1,3,{size},{size}]f32", f"fp16={int(half)}")
        network = Network.read(folder / "network.ncnn.param")
        if unknown := network.unknown():
            raise UserError(f"ncnn has no operator for {', '.join(unknown)}, which this network needs; choose another")
        yield network.named(deployed.output), folder / "network.ncnn.bin"


def _trace(deployed: Deployed, path: Path) -> None:
    """TorchScript of the folded network, from float planes (1, 3, S, S) in 0..255 to its output (1, C)."""
    import torch
    from torch import nn

    folded = deployed.folded()

    class FromPlanes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = folded.model
            # One layer of ncnn's, where (x - shift) / scale would be two and their constants two more.
            self.normalise = nn.BatchNorm2d(3, eps=0.0, affine=False)
            self.normalise.running_mean = folded.shift.reshape(3)
            self.normalise.running_var = folded.scale.reshape(3) ** 2

        def forward(self, planes: Tensor) -> Tensor:
            return folded.finish(self.model(self.normalise(planes)))

    size = deployed.spec.size
    with quiet(), torch.no_grad():
        traced = torch.jit.trace(FromPlanes().eval(), torch.zeros((1, 3, size, size)), check_trace=False)
        held = io.BytesIO()
        torch.jit.save(traced, held)
    path.write_bytes(held.getvalue())  # on a full disk torch would end the process, not raise an error


def program() -> Path:
    """pnnx's executable, in its package."""
    spec = importlib.util.find_spec("pnnx")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    return Path(folders[0] if folders else "pnnx") / ("pnnx.exe" if os.name == "nt" else "pnnx")


def _pnnx(folder: Path, *words: str) -> None:
    command = [str(program()), "network.pt", *words]
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",  # what a program says when it fails may be anything
            timeout=LIMIT_S,
        )
    except subprocess.TimeoutExpired:
        raise UserError(f"pnnx did not convert the network within {LIMIT_S / 60:.0f} minutes; it was stopped") from None
    except OSError as error:
        raise UserError(
            f"pnnx cannot be started ({error}); install it again: pip install --force-reinstall pnnx"
        ) from error
    if shutil.disk_usage(folder).free < _SPACE:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
    if done.returncode or not all((folder / f"network.ncnn.{kind}").exists() for kind in ("param", "bin")):
        lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        why = lines[-1][:200] if lines else "it said nothing"
        raise UserError(f"pnnx cannot convert the network (exit code {done.returncode}): {why}")
