"""The network as it is deployed: preprocessing and softmax inside, so that an app cannot get them wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from softedge.backbones import Classifier
from softedge.data.images import Uint8
from softedge.errors import UserError
from softedge.eval.measures import Float32
from softedge.records import InputSpec, Output


class Deployed(nn.Module):
    """uint8 RGB (N, H, W, 3) -> float32 (N, classes) probabilities or scores, or (N, num_features) for a backbone.

        y = softmax(f((x − 255 mean) / (255 std)))      scores: sigmoid instead of softmax, each label for itself

    In eval mode this module is the reference that every exported file is compared with.
    Raises UserError for a classifier of one class, whose softmax would be 1 for every image.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, model: nn.Module, spec: InputSpec, labels: tuple[str, ...] = (), output: Output | None = None):
        super().__init__()
        classifier = isinstance(model, Classifier)
        self.output: Output = output or ("probabilities" if classifier or labels else "features")
        self.labels = tuple(labels or (model.labels if isinstance(model, Classifier) else ()))
        if self.output == "features":
            self.labels = ()
            model = model.backbone if isinstance(model, Classifier) else model
        if self.output == "probabilities" and len(self.labels) == 1:
            raise UserError(
                f"the classifier has one output ('{self.labels[0]}'), and its softmax is 1.0 for every image; if it "
                "was trained with a sigmoid (binary cross-entropy), give --activation sigmoid, else export features"
            )
        self.model = model
        self.spec = spec
        self.about: dict[str, str] = {}  # written into the file: where the weights come from
        self.options: dict[str, Any] = {}  # of timm's create_model, where the network is not timm's default
        self.head: dict[str, Any] = {}  # how its classifier of several layers is built (``given_network``)
        self.shipped = True  # False: its files are measured only, and what to know before shipping is left unsaid
        self.traced: dict[bool, bytes] = {}  # ONNX graphs by "dynamic batch", see onnx_graph.trace
        self.register_buffer("shift", torch.tensor(spec.mean).reshape(1, 3, 1, 1) * 255)
        self.register_buffer("scale", torch.tensor(spec.std).reshape(1, 3, 1, 1) * 255)
        self.eval()

    @classmethod
    def of(cls, model: nn.Module, spec: InputSpec) -> Deployed:
        """``model`` itself when it is deployed already, else a Classifier or Backbone with ``spec`` around it."""
        return model if isinstance(model, Deployed) else cls(model, spec)

    def folded(self) -> Deployed:
        """The same function with each BatchNorm folded into its convolution (a copy)."""
        from softedge.export.folding import fold_batch_norm

        folded = Deployed(fold_batch_norm(self.model), self.spec, self.labels, self.output)
        folded.about, folded.shipped = self.about, self.shipped
        return folded

    def forward(self, image: Tensor) -> Tensor:
        # Contiguous: exporters turn the strides of a permuted image into gathers behind the global pool.
        return self.from_planes(image.permute(0, 3, 1, 2).contiguous().to(torch.float32))

    def from_planes(self, planes: Tensor) -> Tensor:
        """The same from float (N, 3, H, W) in 0..255, for formats whose image input is planar (Core ML)."""
        return self.finish(self.model(self.normalised(planes)))

    def normalised(self, planes: Tensor) -> Tensor:
        """(N, 3, H, W) in 0..255 -> what the network was trained on."""
        return (planes - self.shift) / self.scale

    def finish(self, outputs: Tensor) -> Tensor:
        """Logits (N, classes) -> probabilities or scores; features stay as they are."""
        if self.output == "scores":
            return torch.sigmoid(outputs)
        return torch.softmax(outputs, dim=1) if self.output == "probabilities" else outputs

    @torch.inference_mode()
    def predict(self, images: Uint8, batch: int = 32) -> Float32:
        """Run uint8 (N, H, W, 3) in batches; float32 (N, outputs)."""
        parts = [self(torch.from_numpy(images[i : i + batch])).numpy() for i in range(0, len(images), batch)]
        return np.concatenate(parts).astype(np.float32)
