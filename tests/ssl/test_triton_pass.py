"""The Triton kernel of the one-pass loss against float64, in Triton's interpreter; compiled for GPUs, run on none.

Triton decides when it is imported whether it interprets, so that what needs it runs in a process of its own.
"""

import json
import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from softedge.ssl import losses, one_pass

pytest.importorskip("triton", reason="Triton is not installed; the loss then never uses its kernel")

ROWS = (1000, 64 * 16, 21)  # with a rest, in whole tiles, hardly more than the neighbours
TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def unit(rows: int, width: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)), dim=1)


def scanned(rows: int, dtype: torch.dtype) -> dict[str, float]:
    """In the interpreter: the largest differences from float64, and whether the neighbours are the nearest ones."""
    from softedge.ssl import triton_pass

    query, queue = unit(70, 32, 0), unit(rows, 32, 1).to(dtype)
    maximum, total, weighted, values, places = triton_pass.scan(query, queue, 0.1, 20, parts=3)
    logits = query.double() @ queue.double().T / 0.1
    nearest = logits.topk(20).values
    return {
        "sum": float((maximum + total.log() - logits.logsumexp(1)).abs().max()),
        "mean": float((weighted / total[:, None] - logits.softmax(1) @ queue.double()).abs().max()),
        "values": float((values - nearest).abs().max()),
        "places": float((logits.gather(1, places) - nearest).abs().max()),
    }


def trained() -> dict[str, float]:
    """In the interpreter: the loss and its gradient through the kernel, against eq. (2) in float64."""
    from softedge.ssl import triton_pass

    query, key, queue, weights = unit(9, 32, 0), unit(9, 32, 1), unit(500, 32, 2), losses.linear_decay(20, 0.8)
    exact = query.double().requires_grad_()
    expected = losses.plain_soft_nce(
        exact, key.double(), queue.double(), temperature=0.1, alpha=0.8, weights=weights.double()
    )
    expected.backward()
    calls: list[int] = []
    scan, query = triton_pass.scan, query.requires_grad_()
    triton_pass.scan = lambda *a, **k: calls.append(1) or scan(*a, **k)
    loss = one_pass.one_pass_soft_nce(query, key, queue, temperature=0.1, alpha=0.8, weights=weights)
    loss.backward()
    return {
        "calls": len(calls),
        "loss": abs(loss.item() / expected.item() - 1),
        "gradient": float((query.grad - exact.grad).norm() / exact.grad.norm()),
    }


def chosen() -> list[bool]:
    """In the interpreter: whether the kernel is taken for tensors that fit, and for some that do not."""
    query, queue = unit(4, 32, 0), unit(64, 32, 1)
    others = (query.double(), queue.double()), (unit(4, 48, 0), unit(64, 48, 1)), (query, queue[:0])
    return [one_pass._kernel_wanted(*pair) for pair in ((query, queue), *others)]


@pytest.fixture(scope="module")
def interpreted() -> dict:
    """What the interpreter found, in one process for all tests."""
    environment = {**os.environ, "TRITON_INTERPRET": "1", "SOFTEDGE_KERNELS": "triton", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, __file__], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize(("dtype", "near"), [("float32", 1e-6), ("bfloat16", 0.01)])
def test_the_kernel_gives_softmax_and_neighbours_of_the_queue(interpreted, rows, dtype, near):
    differences = interpreted[f"{dtype} {rows}"]
    assert differences["sum"] < near
    assert differences["mean"] < near
    assert differences["values"] < 2e-6
    assert differences["places"] < 2e-6


def test_the_loss_through_the_kernel_has_the_gradient_of_equation_2(interpreted):
    assert interpreted["trained"]["calls"] == 1
    assert interpreted["trained"]["loss"] < 1e-6
    assert interpreted["trained"]["gradient"] < 2e-6


def test_the_kernel_is_used_only_for_what_it_takes(interpreted):
    assert interpreted["chosen"] == [True, False, False, False]


def test_without_being_asked_or_without_a_gpu_the_kernel_is_not_used(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setenv("SOFTEDGE_KERNELS", "triton")
    assert not one_pass._kernel_wanted(unit(4, 32, 0), unit(64, 32, 1))
    monkeypatch.delenv("SOFTEDGE_KERNELS")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert not one_pass._kernel_wanted(unit(4, 32, 0), unit(64, 32, 1))


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90])
def test_the_kernel_compiles_for_a_gpu_within_its_shared_memory(capability):
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from softedge.ssl.triton_pass import _ENTRIES, _ROWS, GROUP, _scan

    types = dict.fromkeys(("query", "queue"), "*bf16")
    types |= dict.fromkeys(("maxima", "highest", "total", "mean_key"), "*fp32")
    types |= dict.fromkeys(("n", "length", "groups", "per_part"), "i32") | {"scale": "fp32"}
    fixed = {"width": 128, "rows_": _ROWS, "entries_": _ENTRIES, "group_": GROUP, "wide_": False}
    source = ASTSource(fn=_scan, signature=types | dict.fromkeys(fixed, "constexpr"), constexprs=fixed)
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32))
    assert "mma" in compiled.asm["ptx"]  # the products are on tensor cores
    assert compiled.metadata.shared < 99 * 1024  # of the smallest GPU of these generations


if __name__ == "__main__":
    found = {f"{name} {rows}": scanned(rows, dtype) for rows in ROWS for name, dtype in TYPES.items()}
    print(json.dumps({**found, "trained": trained(), "chosen": chosen()}))
