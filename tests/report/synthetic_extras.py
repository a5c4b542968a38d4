"""The stages that a deployment does not need, for the made-up run of ``synthetic_run``."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from PIL import Image
from synthetic_run import N_TEST, digest, picture, result

from softedge.run import Run, write_json

LOST = {"test": {"n": 1, "of": 400, "names": ["7/cut.png"], "sha256": "ab" * 32}}


def add(run: Run) -> None:
    """Label efficiency, fine-tuning, a linear protocol, detection, another check to compare with, a device that is
    only emulated, and one that was measured elsewhere."""
    _labels(run)
    about = {"init": "ssl", "set_aside": LOST, "losses": [[9, 1.75], [19, 0.5], [29, 0.25]]}
    result(run, "finetune", {"top1": 0.983, "top5": 1.0, "n_train": 1177}, details=about)
    _baselines(run)
    _label_issues(run)
    result(run, "linear/simsiam", {"top1": 0.971, "probe_top1": 0.975, "probe_gap": 0.004})
    _detection(run)
    _against(run)
    _emulated(run)
    _elsewhere(run)
    add_map(run, 300)
    pairs = "kind,similarity,name,split,label,other_name,other_split,other_label\n"
    pairs += "leak,0.97,a.jpg,duplicate,0,b.jpg,test,0\ntwo labels,0.96,c.jpg,train,0,d.jpg,train,1\n"
    (run.folder("data") / "near_copies.csv").write_text(pairs)


def add_map(run: Run, count: int) -> None:
    """Images all over the map, some of them without a label, some in the test set, two with a wrong label."""
    rng = np.random.default_rng(0)
    labels = [-1 if i % 7 == 0 and i else i % 10 for i in range(count)]
    names = [f"photos/<{i}>.jpg" if i == 3 else f"photos/{i}.jpg" for i in range(count)]
    x, y = rng.uniform(0, 1, (2, count)).round(4).tolist()
    values = {"classes": [str(i) for i in range(10)], "side": 48, "columns": 20, "of": count, "names": names}
    values |= {"labels": labels, "tested": [i % 5 == 3 for i in range(count)], "x": x, "y": y}
    run.folder("map").mkdir()
    write_json(run.folder("map") / "map.json", values)
    sheet = Image.fromarray(rng.integers(0, 256, (-(-count // 20) * 48, 960, 3), dtype=np.uint8))
    sheet.save(run.folder("map") / "thumbnails.jpg", quality=20)
    result(run, "map", {"n": count, "of": count})
    run.folder("label_issues").mkdir(exist_ok=True)
    rows = f"name,label,suggested\n{names[3]},3,4\n{names[8]},8,1\nelsewhere.jpg,0,1\n"
    (run.folder("label_issues") / "wrong_labels.csv").write_text(rows)


def _baselines(run: Run) -> None:
    rows = [
        {"name": "majority class", "top1": 0.1, "val_top1": 0.11, "n_train": 1177, "seconds": 0.0},
        {"name": "SVM on HOG", "top1": 0.91, "val_top1": 0.92, "n_train": 1177, "seconds": 1.4},
    ]
    metrics = {"top1": 0.983, "cheap_top1": 0.91, "gain": 0.073, "gain_low": 0.03, "gain_high": 0.12, "useful": True}
    details = {
        "classifier": "finetune",
        "rival": "SVM on HOG",
        "rivals": ["SVM on HOG"],
        "rows": rows,
        "val_top1": {"finetune": 0.98},
    }
    result(run, "baselines", {**metrics, "n_train": 1177, "n_test": N_TEST}, details=details)


def _label_issues(run: Run) -> None:
    values = {"split": "train", "label": "3", "suggested": "8", "probability": 0.02, "suggested_probability": 0.9}
    issues = [{"rank": rank, "name": f"<i>{rank}</i>.png", **values} for rank in (1, 2)]
    issues[1]["split"] = "test"
    (run.folder("label_issues") / "pictures").mkdir(parents=True)
    Image.fromarray(picture(3, np.random.default_rng(0))).save(run.folder("label_issues") / "pictures" / "1.png")
    details: dict[str, Any] = {
        "features": "a network",
        "issues": issues,
        "confused": [{"label": "3", "suggested": "8", "n": 31}],
    }
    metrics = {"n_issues": 31, "n_test_issues": 6, "n_labelled": 1177, "cv_top1": 0.912}
    result(run, "label_issues", metrics, details=details)


def _detection(run: Run) -> None:
    for name, worse in (("voc", 0.0), ("voc-random", 0.25)):
        metrics = {"AP": 0.41 - worse, "AP50": 0.68 - worse, "voc07_AP50": 0.66 - worse, "n_test": 40}
        per_class = {"dog": 0.71 - worse, "<b>cat</b>": 0.65 - worse}
        details = {"AP50_per_class": per_class, "init": "ssl", "head": "ssdlite", "iterations": 24000}
        result(run, f"transfer/{name}", metrics, details=details)


def _against(run: Run) -> None:
    path = run.folder("check") / "result.json"
    if not path.exists():
        return
    stored = json.loads(path.read_text())
    changed = {"top1": {"now": 0.975, "then": 0.95, "change": 0.025}}
    changed |= {"size_bytes": {"now": 780_000, "then": 800_000, "change": -20_000}}
    stored["details"]["against"] = [
        {"artifact": "onnx-int8", "run": "last week", "found": True, **changed},
        {"artifact": "coreml-int8", "run": "last week", "found": False},
    ]
    write_json(path, stored)


def _elsewhere(run: Run) -> None:
    details = {
        "device": {"name": "iPhone 15 Pro"}, "sha256": digest("coreml-fp16"), "measured_elsewhere": True,
        "tool": "Xcode performance report", "why_not_valid": "measured elsewhere, by Xcode performance report",
        "caveat": "Apple publishes no format of Xcode's report",
    }  # fmt: skip
    metrics = {"p50_ms": 0.4, "load_ms": 21.0, "valid": False}
    recipe = {"device": "iPhone 15 Pro"}
    result(run, "bench/coreml-fp16@elsewhere_iPhone_15_Pro", metrics, details=details, recipe=recipe)


def _labels(run: Run) -> None:
    rows = []
    for method, base in (("probe", 0.80), ("finetune", 0.84)):
        for init, bonus in (("random", 0.0), ("ssl", 0.09)):
            for step, (fraction, n) in enumerate(((0.01, 10), (0.1, 118), (1.0, 1177))):
                mean = min(0.99, base + bonus + 0.06 * step)
                rows.append(
                    {
                        "init": init, "method": method, "file": "pytorch", "fraction": fraction, "n_labels": n,
                        "top1": [mean - 0.01, mean, mean + 0.01], "mean": mean,
                        "low": mean - 0.025, "high": mean + 0.025,
                    }
                )  # fmt: skip
    judged = {
        "answer": "yes",
        "headline": "Pretraining was worth it: it helped fine-tuning at 1 % of the labels.",
        "sentences": [],
    }
    details = {"rows": rows, "comparisons": [], "verdict": judged, "scope": "intervals cover the draw of the labels"}
    result(run, "labels", {"n_test": N_TEST, "seeds": 3}, details=details)


def _emulated(run: Run) -> None:
    """A device that answers and is not timed; its int8 kernel saturates."""
    for artifact, agreement in (("onnx-fp32", 1.0), ("onnx-int8", 0.78)):
        details = {
            "device": {"machine": "x86_64", "cpu": "Haswell (emulated)"},
            "sha256": digest(artifact),
            "threads": 1,
        }
        metrics = {"size_bytes": 1, "top1": 0.97 * agreement, "n_images": N_TEST}
        same = round(agreement * N_TEST)
        given = {"names": list(map(str, range(N_TEST))), "predictions": [0] * same + [1] * (N_TEST - same)}
        write_json(run.folder(f"bench/{artifact}@emulated_avx2") / "samples.json", given)
        reason = "not run: emulated, numerics only, never latency"
        more: dict[str, Any] = {
            "details": details,
            "skipped": {"latency": reason},
            "recipe": {"device": "emulated:avx2"},
        }
        result(run, f"bench/{artifact}@emulated_avx2", metrics, **more)
