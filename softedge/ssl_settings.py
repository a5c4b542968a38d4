"""The ``[ssl]`` section of a recipe: one class for each method, told apart by ``ssl.method``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Discriminator, Field

from softedge.section import Fraction, Positive, Section


class Pretraining(Section):
    """What every method needs."""

    epochs: Positive = 200
    batch: Positive = 512  # global: over all GPUs and accumulation steps
    knn_every: int = Field(default=10, ge=0)  # epochs between k-NN measurements during training; 0: never
    checkpoint_every: Positive = 1  # epochs between checkpoints
    log: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ()  # besides metrics.jsonl, which is always written

    # The projector behind the backbone: widths of its layers, the last one is the embedding.
    projector: tuple[Positive, ...] = (2048, 128)
    projector_norm: bool = (
        False  # BatchNorm between the layers (the papers have none; short runs on small data want it)
    )

    def files(self) -> tuple[str, ...]:
        """Files whose content the training depends on."""
        return ()


class MoCoV2(Pretraining):
    """Chen et al. 2020, arXiv 2003.04297."""

    method: Literal["moco-v2"] = "moco-v2"
    queue: Positive = 65536
    temperature: float = Field(default=0.2, gt=0.0)
    momentum: Fraction = 0.999  # of the key encoder
    momentum_cosine: bool = False  # raise the momentum to 1 along a cosine
    symmetric: bool = False  # both views are query and key in turn, the losses averaged
    key_norm: Literal["auto", "shuffle", "split", "ema", "batch"] = (
        "auto"  # keeps BatchNorm from leaking: ssl/key_norm.py
    )
    key_norm_groups: Positive = 4  # groups of the split statistics
    queue_dtype: Literal["fp32", "bf16"] = "fp32"
    joint_views: bool = False  # symmetric: both views in one pass and one BatchNorm batch; faster for small batches


class LightMoCo(MoCoV2):
    """Lin et al. 2022, arXiv 2212.07158."""

    method: Literal["light-moco"] = "light-moco"  # type: ignore[assignment]
    queue: Positive = 262144
    temperature: float = Field(default=0.1, gt=0.0)
    momentum: Fraction = 0.99
    momentum_cosine: bool = True
    symmetric: bool = True
    alpha: Fraction = 0.8  # the positive's share of the target; 1: InfoNCE
    neighbors: Positive = 20  # K, the hardest negatives that share 1 - alpha
    pattern: Literal["linear", "average"] = "linear"
    alpha_schedule: Literal["static", "incremental"] = "static"  # incremental: cosine from 1 down to alpha


class Supervised(Pretraining):
    """The baseline that sees the labels: cross-entropy on the first view, same backbones, data and loop."""

    method: Literal["supervised"] = "supervised"
    label_smoothing: Fraction = 0.1


class SimCLR(Pretraining):
    """Chen et al. 2020, arXiv 2002.05709 and 2006.10029 (v2); the head for MobileNets of Ang 2022."""

    method: Literal["simclr"] = "simclr"
    head: Literal["ang", "v1", "v2"] = "v1"  # v2 has the hidden layer twice; ang has no BatchNorm: ssl/simclr.py
    projector: tuple[Positive, ...] = (2048, 128)  # hidden width and embedding
    dropout: float = Field(default=0.2, ge=0.0, lt=1.0)  # of the head "ang"
    temperature: float = Field(default=0.1, gt=0.0)


class SimCo(Pretraining):
    """Zhang et al. 2022, arXiv 2203.17248: no queue, no momentum encoder."""

    method: Literal["simco"] = "simco"
    temperature: float = Field(default=0.1, gt=0.0)  # τ_α, within an anchor
    inter_temperature: float = Field(default=1.0, gt=0.0)  # τ_β, between anchors


class SimMoCo(Pretraining):
    """Zhang et al. 2022, arXiv 2203.17248: no queue."""

    method: Literal["simmoco"] = "simmoco"
    temperature: float = Field(default=0.1, gt=0.0)  # τ_α, within an anchor
    inter_temperature: float = Field(default=1.0, gt=0.0)  # τ_β, between anchors
    momentum: Fraction = 0.99  # of the key encoder
    momentum_cosine: bool = False  # raise the momentum to 1 along a cosine
    symmetric: bool = False  # both views are query and key in turn, the losses averaged


class BYOL(Pretraining):
    """Grill et al. 2020, arXiv 2006.07733."""

    method: Literal["byol"] = "byol"
    projector: tuple[Positive, ...] = (4096, 256)
    projector_norm: bool = True  # of the predictor as well
    predictor: Positive = 4096  # its hidden width
    momentum: Fraction = 0.99  # of the target network: 0.996 for 1,000 epochs, 0.99 for 300
    momentum_cosine: bool = True  # raise the momentum to 1 along a cosine


class SimSiam(Pretraining):
    """Chen & He 2021, arXiv 2011.10566."""

    method: Literal["simsiam"] = "simsiam"
    projector: tuple[Positive, ...] = (2048, 2048, 2048)
    projector_norm: bool = True  # of the predictor as well
    predictor: Positive = 512  # its hidden width


class MSF(Pretraining):
    """Koohpayegani et al. 2021, arXiv 2105.07269: mean shift."""

    method: Literal["msf"] = "msf"
    projector: tuple[Positive, ...] = (4096, 512)
    projector_norm: bool = True  # of the predictor as well
    predictor: Positive = 4096  # its hidden width
    queue: Positive = 1_024_000  # targets among which the nearest are sought; at most as many as there are images
    neighbors: Positive = 5  # k, the image's own target included
    momentum: Fraction = 0.99  # of the target network
    momentum_cosine: bool = False  # raise the momentum to 1 along a cosine


class PCL(MoCoV2):
    """Li et al. 2021, arXiv 2005.04966: prototypes from clustering beside MoCo-v2 (what the authors call v2)."""

    method: Literal["pcl-v2"] = "pcl-v2"  # type: ignore[assignment]
    queue: Positive = 16384
    clusters: Annotated[tuple[Positive, ...], Field(min_length=1)] = (25_000, 50_000, 100_000)  # fewer on few images
    negatives: Positive = 16384  # r, other prototypes in the denominator at most
    instance_epochs: int = Field(default=20, ge=0)  # epochs with InfoNCE alone, before there are prototypes


class SEED(Pretraining):
    """Fang et al. 2021, arXiv 2101.04731: distillation from a network that was pretrained without labels."""

    method: Literal["seed"] = "seed"
    teacher: str = ""  # its weights: a backbone.safetensors of softedge, or any timm state dict with the name below
    teacher_name: str = ""  # timm name, only for a file that was not written by softedge
    teacher_stem_stride: Literal[1, 2] = 2  # likewise
    projector: tuple[Positive, ...] = (2048,)  # hidden widths; the output is as wide as the teacher's features
    queue: Positive = 65536
    temperature: float = Field(default=0.2, gt=0.0)  # τ_S, of the student
    teacher_temperature: float = Field(default=0.01, gt=0.0)  # τ_T

    def files(self) -> tuple[str, ...]:
        return (self.teacher,)


SSL = Annotated[
    LightMoCo | MoCoV2 | SimCLR | SimMoCo | SimCo | BYOL | SimSiam | MSF | PCL | SEED | Supervised,
    Discriminator("method"),
]
