"""What only a GPU runs, against the same computation on the CPU; everything marked gpu skips without one."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small import SPEC, data, recipe
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))
from pictures import save

from softedge.config import Augment, Optim
from softedge.data.draws import two_views
from softedge.data.images import FileImages
from softedge.data.views import ViewLoader
from softedge.run import Run
from softedge.ssl import compiling, losses, one_pass, optimizers
from softedge.ssl.train import Training


def unit(rows: int, width: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)), dim=1)


def training(folder: Path, **settings) -> Training:
    made = recipe(ssl__knn_every=0, optim__warmup_epochs=0, **settings)
    return Training(Run(folder), made, data(), folder)


def losses_of(steps: int, made: Training) -> list[float]:
    """The losses of the first ``steps`` steps."""
    found = []
    for views, index in (batch for epoch in range(steps) for batch in made.views.epoch(epoch)):
        if made.step == steps:
            break
        made.loss_sum.zero_()
        made.update(views, index)
        found.append(float(made.loss_sum))
    return found


def test_networks_are_compiled_as_asked_and_every_step_begins_a_new_replay(monkeypatch, tmp_path):
    modes, steps = [], []
    monkeypatch.setattr(nn.Module, "compile", lambda self, **how: modes.append(how["mode"]))
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: steps.append(1))
    compiling.compile_networks([nn.Linear(1, 1)], False)
    assert modes == []
    compiling.compile_networks([nn.Linear(1, 1), nn.Linear(1, 1)], True)
    assert modes == [None, None]
    losses_of(2, training(tmp_path, optim__compile="graphs"))
    assert modes[2:] == ["reduce-overhead"] * 2  # encoder and key encoder
    assert steps == [1, 1]


@pytest.mark.parametrize("kind", ["memory", pytest.param("files", marks=pytest.mark.slow)])
@pytest.mark.gpu
def test_views_made_on_the_gpu_are_those_of_the_same_operations_on_the_cpu(tmp_path, kind):
    images = data().pretrain
    if kind == "files":
        for number in range(12):
            save(tmp_path / f"{number}.jpg", number, height=70, width=90)
        images = FileImages(tmp_path, [f"{number}.jpg" for number in range(12)], np.full(12, -1))
    how = {"batch": 6, "seed": 1, "workers": 0, "batched": True}
    here = ViewLoader(images, two_views(SPEC.size, Augment()), device="cpu", **how)
    there = ViewLoader(images, two_views(SPEC.size, Augment()), device="cuda", **how)
    assert (there.rows is not None) == (kind == "memory")
    assert there.rows is None or there.rows.is_cuda
    for one, other in zip(here.epoch(0), there.epoch(0)):
        assert other[0][0].is_cuda
        for side in (0, 1):
            difference = (one[0][side].int() - other[0][side].cpu().int()).abs()
            assert difference.float().mean() < 0.1  # rounding at the edge of a level


@pytest.mark.gpu
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.bfloat16, 0.03)])
@pytest.mark.parametrize("kernels", ["", "triton"])
def test_the_one_pass_loss_on_the_gpu_stays_near_float64(monkeypatch, kernels, dtype, tolerance):
    monkeypatch.setenv("SOFTEDGE_KERNELS", kernels)
    query, key, queue, weights = unit(512, 128, 0), unit(512, 128, 1), unit(65536, 128, 2), losses.linear_decay(20, 0.8)
    exact = query.double().requires_grad_()
    losses.plain_soft_nce(
        exact, key.double(), queue.double(), temperature=0.1, alpha=0.8, weights=weights.double()
    ).backward()
    asked = query.cuda().requires_grad_()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    kept = queue.cuda().to(dtype)
    one_pass.one_pass_soft_nce(asked, key.cuda(), kept, temperature=0.1, alpha=0.8, weights=weights.cuda()).backward()
    assert (asked.grad.cpu() - exact.grad).norm() / exact.grad.norm() < tolerance
    extra = torch.cuda.max_memory_allocated() - before - kept.nbytes
    assert extra < 2 * 512 * 65536 * 4  # the naive form keeps several of these; in full length it is 1/25


@pytest.mark.gpu
def test_the_optimizer_on_the_gpu_is_fused():
    optimizer = optimizers.build(Optim(), [nn.Parameter(torch.zeros(3, device="cuda"))])
    assert optimizer.defaults["fused"]


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_first_steps_on_the_gpu_have_the_losses_of_the_cpu(monkeypatch, tmp_path, precision):
    there = training(tmp_path / "gpu", optim__precision=precision)
    assert next(there.method.parameters()).is_cuda
    assert there.method.backbone.net.conv_stem.weight.is_contiguous(memory_format=torch.channels_last)
    actual = losses_of(4, there)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    expected = losses_of(4, training(tmp_path / "cpu"))
    assert actual == pytest.approx(expected, rel=0.02 if precision == "fp32" else 0.2)


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.parametrize("how", ["true", "graphs"])
def test_compiled_steps_have_the_losses_of_plain_ones(tmp_path, how):
    plain = losses_of(6, training(tmp_path / "plain", optim__precision="fp32"))
    compiled = losses_of(6, training(tmp_path / how, optim__precision="fp32", optim__compile=how))
    assert compiled == pytest.approx(plain, rel=0.02)
