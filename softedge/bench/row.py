"""One artifact on one device as a row of the table: raw samples and outputs become metrics, details and reasons."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softedge.bench import answers, latency
from softedge.bench.base import Measurement, TimingPlan
from softedge.data.images import UNLABELLED
from softedge.records import Artifact, Outcome
from softedge.run import write_text

# MLPerf Mobile asks a classifier for 98% of the fp32 accuracy, MLPerf Inference for 99%.
QUALITY_GATES = (0.98, 0.99)
COPIED = ("threads", "effective_precision", "accelerator", "runtime")


@dataclass(frozen=True)
class Session:
    """What one run on one device gave for all artifacts, measured side by side.

    labels: int64 (N,), UNLABELLED where unknown; names: of the N images.
    checked: artifact -> what the same file answered in the check, by the names of its images.
    """

    began: str
    device: Mapping[str, Any]
    plan: TimingPlan
    measured: tuple[Measurement, ...]
    labels: NDArray[np.int64]
    names: Sequence[str]
    checked: Mapping[str, answers.Classes] = field(default_factory=dict)

    @functools.cached_property
    def top1(self) -> dict[str, float | None]:
        """Artifact -> share of the labelled images whose largest output is the label; None where unknown."""
        return {m.artifact: self._top1(m) for m in self.measured}

    def _top1(self, measurement: Measurement) -> float | None:
        known = self.labels != UNLABELLED
        if measurement.outputs is None or not known.any():
            return None
        return float((measurement.outputs.argmax(axis=1) == self.labels)[known].mean())

    def row(self, artifact: Artifact, measurement: Measurement, folder: Path) -> Outcome:
        """Metrics, details and what was not measured; raw samples go to ``folder``/samples.json."""
        details: dict[str, Any] = {
            "artifact": artifact.name,
            "target": artifact.target,
            "precision": artifact.precision,
            "sha256": artifact.sha256,
            "preset": self.plan.preset,
            "session": self.began,
            "device": dict(self.device),
        }
        if measurement.skipped:
            return Outcome({}, details, {"latency": measurement.skipped, "top1": measurement.skipped})
        details |= {key: getattr(measurement, key) for key in COPIED} | dict(measurement.details)
        outcome = Outcome({"size_bytes": artifact.size_bytes}, details, {})
        self._accuracy(artifact, measurement, outcome)
        self._latency(measurement, outcome)
        self._end_to_end(measurement, outcome)
        self._write_samples(artifact, measurement, folder)
        return outcome

    def _accuracy(self, artifact: Artifact, measurement: Measurement, outcome: Outcome) -> None:
        """top1 of the very file that was timed, and MLPerf's gates against fp32 of the same target on this device."""
        if artifact.output != "probabilities":
            outcome.skipped["top1"] = f"not run: the file gives {artifact.output}, not one class an image"
            return
        if artifact.name in self.checked and measurement.outputs is not None:
            found = measurement.outputs.argmax(axis=1).tolist()
            if (compared := answers.agreement(self.checked[artifact.name], self.names, found)) is not None:
                outcome.metrics["agreement_local"] = compared[0]
        value = self.top1[artifact.name]
        if value is None:
            outcome.skipped["top1"] = "not run: no labelled test images"
            return
        outcome.metrics["top1"] = value
        outcome.metrics["n_images"] = int((self.labels != UNLABELLED).sum())
        fp32 = self.top1.get(f"{artifact.target}-fp32")
        if fp32 and artifact.precision != "fp32":
            passed = {f"{gate:.0%}": value / fp32 >= gate for gate in QUALITY_GATES}
            of = f"{artifact.target}-fp32 on this device"
            outcome.details["quality"] = {"of": of, "top1_fp32": fp32, "ratio": value / fp32, "passed": passed}

    def _latency(self, measurement: Measurement, outcome: Outcome) -> None:
        if measurement.not_timed or not len(measurement.samples_ms):
            outcome.skipped["latency"] = measurement.not_timed or "not run: the device returned no samples"
            return
        summary = dataclasses.asdict(latency.summarise(measurement, self.plan))
        outcome.details["why_not_valid"] = summary.pop("why_not_valid")
        outcome.details["runs_per_sample"] = measurement.runs_per_sample
        outcome.metrics.update({key: value for key, value in summary.items() if not math.isnan(value)})
        if measurement.peak_memory_bytes:
            outcome.metrics["peak_memory_bytes"] = measurement.peak_memory_bytes
        drift = latency.drift(measurement.samples_ms)
        outcome.details["drift"] = dataclasses.asdict(drift) if drift else None
        pairs = {m.artifact: latency.paired_ratio(measurement, m) for m in self.measured if m is not measurement}
        outcome.details["paired"] = {name: dataclasses.asdict(pair) for name, pair in pairs.items() if pair}

    def _end_to_end(self, measurement: Measurement, outcome: Outcome) -> None:
        if "latency" in outcome.skipped:
            return
        parts = {key: latency.percentiles(values) for key, values in measurement.end_to_end_ms.items() if len(values)}
        if "total" not in parts:
            reason = measurement.end_to_end_skipped or "the device returned no samples"
            outcome.skipped["end_to_end"] = f"not run: {reason}"
            return
        outcome.details["end_to_end"] = {**parts, "n": len(measurement.end_to_end_ms["total"])}
        outcome.metrics["end_to_end_p90_ms"] = parts["total"]["p90_ms"]

    def _write_samples(self, artifact: Artifact, measurement: Measurement, folder: Path) -> None:
        classes = artifact.output == "probabilities" and measurement.outputs is not None
        stored = {
            "samples_ms": [float(value) for value in measurement.samples_ms],
            "rounds": [int(number) for number in measurement.rounds],
            "end_to_end_ms": {key: list(values) for key, values in measurement.end_to_end_ms.items()},
            "predictions": np.argmax(measurement.outputs, axis=1).tolist() if classes else None,  # type: ignore[arg-type]
            "labels": self.labels.tolist(),
            "names": list(self.names),
        }
        # One line: a fast model gives 50,000 samples.
        write_text(folder / "samples.json", json.dumps(stored, allow_nan=False, separators=(",", ":")))
