"""SoftNCE over a large queue: the one-pass form against the naive one, forward and backward, time and extra memory.

    python benchmarks/loss.py [--queue 262144] [--batch 64 512] [--threads 1] [--rounds 7]

Both forms run in turn in the same process on the same numbers; times are medians of the rounds, the speed is the median
of the rounds' ratios; on a CPU it is processor time. Extra memory is the rise of the process's peak over what is held
before the call (Linux), each form in a process of its own; on CUDA it is torch's own count.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from softedge.machine.provenance import cpu_name
from softedge.ssl.losses import linear_decay
from softedge.ssl.one_pass import one_pass_soft_nce

WIDTH, TEMPERATURE, ALPHA, NEIGHBORS = 128, 0.1, 0.8, 20


def naive(query: Tensor, key: Tensor, queue: Tensor, weights: Tensor) -> Tensor:
    """As MoCo's code does it: all logits in one tensor, soft labels in another of the same size."""
    positive = torch.einsum("nc,nc->n", query, key)[:, None]
    negatives = torch.einsum("nc,qc->nq", query, queue.clone().detach().to(query.dtype))
    logits = torch.cat([positive, negatives], 1) / TEMPERATURE
    with torch.no_grad():
        target = torch.zeros_like(logits)
        target.scatter_(1, logits[:, 1:].topk(NEIGHBORS, 1).indices + 1, weights.expand(len(query), -1))
        target[:, 0] = ALPHA
    return -(target * F.log_softmax(logits, 1)).sum(1).mean()


def one_pass(query: Tensor, key: Tensor, queue: Tensor, weights: Tensor) -> Tensor:
    return one_pass_soft_nce(query, key, queue, temperature=TEMPERATURE, alpha=ALPHA, weights=weights)


FORMS: dict[str, tuple[Callable[..., Tensor], torch.dtype]] = {
    "naive fp32": (naive, torch.float32),
    "one pass fp32": (one_pass, torch.float32),
    "one pass bf16 queue": (one_pass, torch.bfloat16),
}


def material(batch: int, queue: int, dtype: torch.dtype, device: str) -> tuple[Tensor, ...]:
    """Query with gradient, key near it, queue, weights."""
    generator = torch.Generator().manual_seed(0)
    query, noise, keys = (torch.randn(n, WIDTH, generator=generator) for n in (batch, batch, queue))
    query = F.normalize(query, dim=1)
    key = F.normalize(query + 0.5 * F.normalize(noise, dim=1), dim=1)
    keys = F.normalize(keys, dim=1).to(device, dtype)
    return query.to(device).requires_grad_(), key.to(device), keys, linear_decay(NEIGHBORS, ALPHA).to(device)


def once(form: str, tensors: tuple[Tensor, ...]) -> float:
    """Seconds for one forward and backward; on a CPU of processor time over the threads, whatever else runs there."""
    on_gpu = tensors[0].is_cuda
    clock = time.perf_counter if on_gpu else time.process_time
    tensors[0].grad = None
    if on_gpu:
        torch.cuda.synchronize()
    began = clock()
    FORMS[form][0](*tensors).backward()
    if on_gpu:
        torch.cuda.synchronize()
    return (clock() - began) / (1 if on_gpu else torch.get_num_threads())


def _peak_kib() -> int:
    """The process's highest resident memory since it was last reset."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


def _extra_memory(form: str, batch: int, queue: int, threads: int, answers: multiprocessing.Queue) -> None:
    torch.set_num_threads(threads)
    tensors = material(batch, queue, FORMS[form][1], "cpu")
    small = material(4, 20_000, FORMS[form][1], "cpu")
    once(form, small)  # libraries are loaded, threads started
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = _peak_kib()
    once(form, tensors)
    answers.put((_peak_kib() - before) / 1024)


def extra_memory(form: str, batch: int, queue: int, threads: int, device: str) -> float:
    """MiB."""
    if device == "cuda":
        tensors = material(batch, queue, FORMS[form][1], device)
        once(form, tensors)
        tensors[0].grad = None
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        once(form, tensors)
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    context = multiprocessing.get_context("spawn")
    answers: multiprocessing.Queue = context.Queue()
    process = context.Process(target=_extra_memory, args=(form, batch, queue, threads, answers))
    process.start()
    value = answers.get()
    process.join()
    return value


def gradient_error(form: str, batch: int, queue: int, device: str) -> float:
    """‖g - g64‖ / ‖g64‖ against the naive form in float64 (on a part of the batch, for its memory)."""
    query, key, keys, weights = material(min(batch, 16), queue, torch.float64, device)
    exact = query.detach().double().requires_grad_()
    naive(exact, key.double(), keys, weights.double()).backward()
    tensors = material(min(batch, 16), queue, FORMS[form][1], device)
    FORMS[form][0](*tensors).backward()
    assert tensors[0].grad is not None and exact.grad is not None
    return float((tensors[0].grad - exact.grad).norm() / exact.grad.norm())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queue", type=int, default=262144)
    parser.add_argument("--batch", type=int, nargs="+", default=[64, 512])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    name = torch.cuda.get_device_name() if asked.device == "cuda" else f"{cpu_name()}, {asked.threads} thread(s)"
    print(f"torch {torch.__version__}, {name}, queue {asked.queue} x {WIDTH}, {asked.rounds} rounds\n")
    print("| batch | form | ms (min) | speed, median of ratios | extra MiB | memory | gradient error vs fp64 |")
    print("|---|---|---|---|---|---|---|")
    for batch in asked.batch:
        ready = {form: material(batch, asked.queue, dtype, asked.device) for form, (_, dtype) in FORMS.items()}
        for form in FORMS:
            once(form, ready[form])
        seconds: dict[str, list[float]] = {form: [] for form in FORMS}
        for _ in range(asked.rounds):
            for form in FORMS:
                seconds[form].append(once(form, ready[form]))
        first = next(iter(FORMS))
        memory = {form: extra_memory(form, batch, asked.queue, asked.threads, asked.device) for form in FORMS}
        for form in FORMS:
            ratio = statistics.median(a / b for a, b in zip(seconds[first], seconds[form]))
            print(
                f"| {batch} | {form} | {statistics.median(seconds[form]) * 1e3:.0f} ({min(seconds[form]) * 1e3:.0f}) "
                f"| {ratio:.2f}× | {memory[form]:.0f} | 1/{memory[first] / max(memory[form], 1e-9):.0f} "
                f"| {gradient_error(form, batch, asked.queue, asked.device):.1e} |"
            )


if __name__ == "__main__":
    main()
