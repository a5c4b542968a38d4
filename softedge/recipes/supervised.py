"""Sections of trainings with labels: ``[finetune]`` and ``[distill]``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from softedge.recipes.section import Fraction, Pixels, Positive, Section


class SupervisedSection(Section):
    """Batches of labelled images through ``eval/optimising.py``: AdamW, warm-up and cosine, averaged weights."""

    epochs: Positive = 50
    min_steps: Positive = 200  # at least this many steps, however few labels
    max_steps: int = Field(default=0, ge=0)  # 0: no limit
    batch: Positive = 64
    lr: float = Field(default=1e-3, gt=0.0)  # of the head
    weight_decay: float = Field(default=0.05, ge=0.0)
    warmup: Fraction = 0.1  # fraction of the steps
    mixup: float = Field(default=0.0, ge=0.0)  # alpha of the Beta distribution; 0: none
    ema: float = Field(default=0.99, ge=0.0, lt=1.0)  # decay of the averaged weights that are kept; 0: no averaging
    min_area: float = Field(default=0.35, gt=0.0, le=1.0)  # of the random resized crop
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # as optim.precision: auto is bf16 on GPUs, fp32 on CPUs


class Finetune(SupervisedSection):
    """Training the whole network on the labels (AdamW, cosine), from the SSL backbone, ImageNet weights or scratch."""

    init: str = "ssl"  # "ssl", "random", "imagenet" (timm downloads them) or a weights file
    layer_decay: float = Field(default=1.0, gt=0.0, le=1.0)  # rate of a layer / rate of the next; scratch has 1
    label_smoothing: Fraction = 0.1
    labels: float = Field(default=1.0, gt=0.0, le=1.0)  # fraction of the training labels, stratified


def _with_features(names: tuple[str, ...]) -> tuple[str, ...]:
    if {*names} == {"words"}:
        raise PydanticCustomError("words_alone", "words stand beside the features of a network")
    return names


class Distill(SupervisedSection):
    """A network learns from a teacher on all training images, with labels and without (SimCLRv2, arXiv 2006.10029)."""

    # "auto": where most images have no label "ensemble", else "best" of the run's classifiers on validation images;
    # "probe", "finetune"; "spread": labels spread over neighbouring features; "ensemble": these, a linear layer on the
    # same features and, unless labels are few, the fine-tuned network together; a run, a classifier.safetensors, or a
    # timm network: a linear layer on its features
    teacher: str = "auto"
    teacher_weights: str = "auto"  # of a timm network, as backbone.weights
    teacher_size: Pixels = 0  # that "spread" or a timm network see; 0: those of the weights
    # Networks over whose features together labels spread: "run" is the run's own, the others are timm's with their
    # ImageNet weights; "words": visual words, found among the images, besides; "auto": the run's own, words and, where
    # it starts from given weights, the networks of installed packages
    spread_over: Annotated[
        tuple[str, ...], Field(min_length=1, examples=[["run", "words"]]), AfterValidator(_with_features)
    ] = ("auto",)
    backbone: str = ""  # a timm network to teach; "": that of the run, from its weights
    weights: str = "auto"  # where another network starts from, as backbone.weights
    size: int = Field(default=0, ge=0)  # its pixels; 0: those of the run
    alpha: Fraction = 0.8  # weight of the teacher; the labels have the rest
    temperature: float = Field(default=1.0, gt=0.0)  # of teacher and student
    epochs: Positive = 10
    batch: Positive = 32
