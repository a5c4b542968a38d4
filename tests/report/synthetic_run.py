"""Writes a whole run folder of made-up but realistic results, as the stages would, without running any of them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from softedge.bench import answers as checked_answers
from softedge.records import Result
from softedge.run import Run, write_json, write_text

CLASSES = [str(i) for i in range(10)]
N_TEST, SIZE = 120, 16
ENVIRONMENT = {
    "versions": {"softedge": "0.1.0", "torch": "2.15.0", "onnxruntime": "1.31.1", "openvino": "2026.4.1"},
    "python": "3.11.2",
    "os": "Linux-6.1-x86_64",
    "cpu": "Example CPU @ 2.00GHz",
    "cores": 2,
    "git": "30b544d",
    "threads": 2,
    "command": "softedge deploy --data '/home/ada/my photos' --out runs/full",
}
# artifact: (size in MB, images of 120 right, agreement, p50 ms, gate)
FILES: dict[str, tuple[float, int, float, float, bool | None]] = {
    "onnx-fp32": (2.31, 117, 1.0, 1.42, True),
    "onnx-fp16": (1.20, 117, 1.0, 4.61, True),
    "onnx-int8": (0.78, 117, 0.992, 1.31, True),
    "openvino-fp32": (2.35, 117, 1.0, 0.94, True),
    "openvino-fp16": (1.24, 117, 1.0, 0.95, True),
    "openvino-int8": (0.80, 116, 0.983, 0.61, True),
    "coreml-fp32": (2.33, 117, 1.0, 0.0, True),
    "coreml-fp16": (1.21, 117, 1.0, 0.0, True),
    "coreml-int8": (0.71, 110, 0.931, 0.0, False),
}


def make(
    root: Path,
    *,
    without: tuple[str, ...] = (),
    devices: tuple[str, ...] = ("local",),
    seed: int = 0,
    speed: float = 1.0,
    pictures: bool = True,
    extras: bool = False,
) -> Run:
    """A finished run below ``root``; ``without`` leaves stages out ("probe", "export", ...). speed scales latencies."""
    run, rng = Run(root), np.random.default_rng(seed)
    root.mkdir(parents=True)
    write_text(root / "recipe.toml", RECIPE.format(seed=seed))
    stages = {"data": _data, "pretrain": _pretrain, "probe": _probe, "export": _export, "check": _check}
    for name, write in stages.items():
        if name not in without and (name != "data" or pictures):
            write(run, rng)
    if extras:
        fit = {"network": "tf_efficientnet_lite0", "size": 128, "p90_ms": 4.25, "megabytes": 3.4, "met": True}
        plan = {"network": fit["network"], "size": 128, "fits": [fit], "few_pixels": "", "more_minutes": 20}
        write_text(root / "plan.json", json.dumps(plan))
        import synthetic_extras

        synthetic_extras.add(run)
    if "bench" not in without:
        for number, device in enumerate(devices):
            _bench(run, rng, device, speed * (1 + 2.5 * number))
    return run


RECIPE = """name = "digits"
seed = {seed}
[data]
source = "digits"
[backbone]
name = "mobilenetv3_small_050"
[ssl]
method = "light-moco"
epochs = 60
[export]
targets = ["onnx", "openvino", "coreml"]
precisions = ["fp32", "fp16", "int8"]
"""


def result(run: Run, stage: str, metrics: dict[str, Any], **more: Any) -> None:
    """Write a result.json as ``run.perform`` does."""
    values = {"recipe": {}, "inputs": {}, "details": {}, "skipped": {}} | more
    started = "2026-11-20T16:07:00+00:00"
    record = Result(stage, run.name, metrics, environment=ENVIRONMENT, started=started, seconds=12.5, **values)
    write_json(run.folder(stage) / "result.json", record.to_dict())


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def labels() -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.arange(N_TEST) % 10


def answers(wrong: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Predictions with so many mistakes."""
    found = labels()
    found[:wrong] = (found[:wrong] + 5) % 10
    return found


def picture(number: int, rng: np.random.Generator) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A bar whose angle is the class."""
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE / 2
    angle = np.pi * number / 10
    bar = np.exp(-((x * np.sin(angle) - y * np.cos(angle)) ** 2) / 4) * 220 + rng.normal(0, 8, (SIZE, SIZE))
    return np.repeat(bar.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)


def _data(run: Run, rng: np.random.Generator) -> None:
    images = run.root / "images"
    images.mkdir()
    items = []
    for index in range(N_TEST + 10):
        label, split = (int(labels()[index]), "test") if index < N_TEST else (index - N_TEST, "train")
        name = f"{label}/{index:04d}.png"
        (images / name).parent.mkdir(exist_ok=True)
        Image.fromarray(picture(label, rng)).save(images / name)
        content = hashlib.sha256((images / name).read_bytes()).hexdigest()
        items.append({"name": name, "sha256": content, "split": split, "label": label})
    spec = {
        "size": SIZE, "resize": SIZE, "crop": "center", "interpolation": "bilinear", "antialias": True,
        "mean": [0.3, 0.3, 0.3], "std": [0.2, 0.2, 0.2],
    }  # fmt: skip
    head = {"schema": 1, "source": str(images), "classes": CLASSES, "spec": spec, "counts": {}, "bad": []}
    write_text(run.root / "data" / "index.json", json.dumps({**head, "items": items}))
    bad = [
        {"name": "7/broken <1>.png", "reason": "the file ends too early"},
        {"name": "3/empty.jpg", "reason": "empty file"},
    ]
    per_class = {"train": dict.fromkeys(CLASSES, 118), "test": dict.fromkeys(CLASSES, 12)}
    details = {
        "source": str(images), "classes": CLASSES, "per_class": per_class, "test_split": "held out", "bad": bad,
        "ignored": {"other files": 3}, "notices": [], "verified": True, "longer_side": SIZE, "spec": spec,
        "root": str(images),
    }  # fmt: skip
    counts = {"n_pretrain": 1437, "n_train": 1177, "n_test": N_TEST, "n_classes": 10}
    counts |= {"n_bad": 2, "n_duplicates": 0, "n_contradictions": 0}
    result(run, "data", counts, details=details)


def _pretrain(run: Run, rng: np.random.Generator) -> None:
    lines = [{"step": 0, "epoch": 0.0, "knn_top1": 0.81}]
    for epoch in range(1, 61):
        for part in (0.5, 1.0):
            at = epoch - 1 + part
            line = {"step": int(at * 22), "epoch": at, "loss": 3.1 + 3.0 * np.exp(-at / 9) + rng.normal(0, 0.03)}
            if part == 1.0 and epoch % 5 == 0:
                line["knn_top1"] = 0.95 - 0.35 * np.exp(-at / 12) + rng.normal(0, 0.005)
            lines.append(line)
    text = "".join(json.dumps(line) + "\n" for line in lines) + '{"step": 13'
    write_text(run.root / "pretrain" / "metrics.jsonl", text)
    metrics = {
        "loss": 3.104,
        "epochs": 60,
        "steps": 1320,
        "images_per_second": 912.4,
        "knn_top1": 0.95,
        "knn_top1_start": 0.81,
    }
    result(run, "pretrain", metrics, details={"warnings": []})


def _probe(run: Run, rng: np.random.Generator) -> None:
    centres = rng.normal(0, 1, (10, 24))
    features = (centres[labels()] + rng.normal(0, 0.45, (N_TEST, 24))).astype(np.float32)
    found = answers(3)
    probabilities = np.full((N_TEST, 10), 0.01, np.float32)
    probabilities[np.arange(N_TEST), found] = 0.91
    run.folder("probe").mkdir()
    np.savez(
        run.folder("probe") / "features.npz", test_features=features, test_labels=labels(),
        test_predictions=found, test_probabilities=probabilities,
    )  # fmt: skip
    metrics = {
        "knn_top1": 0.9583, "linear_top1": 0.975, "linear_top5": 1.0, "few_knn_top1": 0.901, "few_linear_top1": 0.929,
        "random_knn_top1": 0.8167, "random_linear_top1": 0.85, "random_linear_top5": 0.9917,
        "random_few_knn_top1": 0.612,
        "random_few_linear_top1": 0.684, "n_train": 1177, "n_test": N_TEST,
    }  # fmt: skip
    few = {"labels_per_class": 10, "draws": 5, "knn": [0.88, 0.92], "linear": [0.91, 0.94]}
    details = {"classes": CLASSES, "few": few, "random_few": few | {"knn": [0.58, 0.64], "linear": [0.66, 0.71]}}
    inputs = {"data/index.json": digest("data"), "pretrain/backbone.safetensors": digest("backbone")}
    result(run, "probe", metrics, details=details, inputs=inputs)


def _export(run: Run, rng: np.random.Generator) -> None:
    for artifact, (megabytes, *_) in FILES.items():
        target, _, precision = artifact.rpartition("-")
        values = {
            "schema": 1, "target": target, "precision": precision, "model": "model.onnx", "sha256": digest(artifact),
            "size_bytes": round(megabytes * 1e6), "checkpoint": {"checkpoint_sha256": digest("classifier")},
            "notes": {"calibration": "mse of 300 images"}, "output": {"name": "probabilities", "dtype": "float32"},
            "calibration": {"images": 300, "source": "pretraining images", "warnings": []},
        }  # fmt: skip
        write_json(run.folder(f"export/{artifact}") / "contract.json", values)
        metrics = {"size_bytes": values["size_bytes"], "seconds": 3.25}
        inputs = {"probe/classifier.safetensors": digest("classifier")}
        result(run, f"export/{artifact}", metrics, details={"sha256": values["sha256"]}, inputs=inputs)


def _check(run: Run, rng: np.random.Generator) -> None:
    rows = []
    fp32 = 117 / N_TEST
    for artifact, (megabytes, right, agreement, _, passed) in FILES.items():
        target, _, precision = artifact.rpartition("-")
        eight = precision == "int8"
        rows.append(
            {
                "artifact": artifact, "target": target, "precision": precision, "sha256": digest(artifact),
                "size_bytes": round(megabytes * 1e6), "n": N_TEST, "top1": right / N_TEST, "top1_fp32": fp32,
                "drop": fp32 - right / N_TEST, "agreement": agreement, "max_abs_diff": 0.21 if eight else 2.1e-6,
                "sqnr_db": {"fp32": 118.2, "fp16": 67.4, "int8": 26.1}[precision], "size_ratio": megabytes / 2.33,
                "runtime": "reference interpreter 0.1.0" if target == "coreml" else f"{target} 1.31.1",
                "passed": passed,
                "quantized_ops": {"conv": 50, "conv_float": 2, "linear_float": 1} if eight else {"conv_float": 52},
                **({"allowed": "1 of 120 answers changed"} if artifact == "onnx-int8" else {}),
                "why": "" if passed else "agreement 0.931 is below 0.98; top-1 drop 0.058 is above 0.01",
            }
        )  # fmt: skip
    examples = []
    for index in range(6):
        (run.folder("check") / "examples").mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(index, rng)).save(run.folder("check") / f"examples/{index:05d}.png")
        right = {"predicted": CLASSES[index], "probability": 0.97}
        lost = index < 2
        found = {name: {"predicted": "9", "probability": 0.61} if lost and "int8" in name else right for name in FILES}
        examples.append(
            {
                "index": index, "name": f"{index}/x.png", "file": f"examples/{index:05d}.png", "label": CLASSES[index],
                "lost_by_int8": lost, "fp32": right, "predictions": found,
            }
        )  # fmt: skip
    details = {
        "rows": rows, "failed": ["coreml-int8: agreement"], "examples": examples,
        "images": {"n": N_TEST, "labelled": True, "held_out": True},
    }  # fmt: skip
    layer = {"shape": [8, 8, 1, 1], "low": -3.0, "high": 6.1, "widest": 1.5}
    layers = [
        layer | {"name": f"blocks.{i}.conv_pwl", "alone_db": 22.0 + i, "float_gain_db": 3.0 - i} for i in range(9)
    ]
    steps = [
        {"step": "default", "what": "as exported", "agreement": 0.97, "sqnr_db": 21.2, "passed": False, "kept": True}
        | {"time_over_fp32": 0.8},
        {
            "step": "mixed",
            "what": "2 layers in float",
            "agreement": 0.992,
            "time_over_fp32": 0.9,
            "passed": True,
            "kept": True,
            "names": ["a"],
        },
        {"step": "tuned", "what": "too slow here", "why": "too slow here", "size_bytes": 0, "passed": False},
    ]
    said = {"selection": "768 training images: a sample"}
    said |= {"recommendation": "Keep two layers in float.", "file": "onnx-int8"}
    searched = {**said, "steps": steps, "layers": layers}
    result(run, "quantize/onnx-int8", {"good": False}, details=searched)
    weights = {"recommendation": "Use 'weights' of OpenVINO.", "steps": steps[:1], "file": "openvino-int8"}
    result(run, "quantize/openvino-int8", {"good": False}, details=weights)
    details["hardware"] = {
        "onnx-int8": {"avx2": {"n": 64, "changed": 0.22, "advice": "x"}, "arm64": {"not_run": "no qemu"}}
    }
    metrics = {"passed": False, "n": N_TEST, "files": 9, "files_passed": 8, "files_failed": 1, "files_not_run": 0}
    recipe = {"check": {"max_drop": 0.01, "min_agreement": 0.98, "images": 1000}, "seed": 0}
    answered = {artifact: (digest(artifact), [0] * N_TEST) for artifact in FILES}
    checked_answers.write(run.folder("check"), list(map(str, range(N_TEST))), answered)
    result(run, "check", metrics, details=details, recipe=recipe)


def _bench(run: Run, rng: np.random.Generator, device: str, slower: float) -> None:
    about = {"cpu": "Example CPU @ 2.00GHz", "os": "Linux-6.1", "isa": ["avx2", "avx512_vnni"], "cores": 2}
    for artifact, (_, right, _, p50, _) in FILES.items():
        details = {"device": about, "artifact": artifact, "sha256": digest(artifact), "preset": "quick"}
        if not p50:
            reason = "Core ML runs on Apple systems only; bench it with --devices macos: on a Mac"
            result(run, f"bench/{artifact}@{device}", {}, details=details, skipped={"latency": reason, "top1": reason})
            continue
        samples = p50 * slower * (1 + rng.gamma(1.3, 0.035, 400))
        p = {q: float(np.percentile(samples, q, method="inverted_cdf")) for q in (50, 90, 99)}
        metrics = {
            "p50_ms": p[50], "p90_ms": p[90], "p99_ms": p[99], "mean_ms": float(samples.mean()),
            "min_ms": float(samples.min()),
            "n": 400, "load_ms": 31.0, "first_ms": p50 * 2, "valid": True, "top1": right / N_TEST, "n_images": N_TEST,
            "size_bytes": 1, "peak_memory_bytes": 61_000_000, "end_to_end_p90_ms": p[90] + 0.4,
        }  # fmt: skip
        details |= {
            "threads": 1, "effective_precision": "f32", "runtime": "onnxruntime 1.31.1", "why_not_valid": "",
            "drift": {"ratio": 1.01, "flagged": False}, "accelerator": "CPUExecutionProvider", "session": "S",
            "paired": {"onnx-fp32": {"ratio": 0.9, "low": 0.88, "high": 0.93, "rounds": 60, "different": True}},
            "before": {"clocks_mhz": [1900, 2000], "temperature_c": 51.0},
            "after": {"clocks_mhz": [1800, 2000], "temperature_c": 63.0, "throttling": "light"},
            "quality": {"of": "fp32", "top1_fp32": 0.975, "ratio": 1.0, "passed": {"98%": True, "99%": True}},
            "end_to_end": {part: {"p50_ms": 0.1, "p90_ms": 0.2} for part in ("decode", "resize", "model", "total")},
        }  # fmt: skip
        write_json(run.folder(f"bench/{artifact}@{device}") / "samples.json", {"samples_ms": samples.tolist()})
        result(
            run, f"bench/{artifact}@{device}", metrics, details=details, recipe={"preset": "quick", "device": device}
        )
