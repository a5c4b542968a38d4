"""A benchmark as a folder that can travel: models, images, plan and worker go in, raw samples and outputs come out."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

import numpy as np

from softedge import registry
from softedge.bench.base import DeviceError, Measurement, TimingPlan, last_line
from softedge.export.base import open_format
from softedge.progress import track
from softedge.records import Artifact
from softedge.run import read_json, sha256, write_json

CARRIED = ("worker.py", "subject.py", "kernels.py", "detections.py", "integers.py", "pictures.py", "system.py")
_DYING_S = 5.0  # what a killed process may take to disappear
_GRACE_S = 30.0  # for starting Python and writing the results, beyond the plan's time limit


def options() -> tuple[str, ...]:
    """What a device that runs the worker takes in its address: threads, and what the formats' runtimes take."""
    return ("threads", *dict.fromkeys(option for kind in registry.formats() for option in kind.board_options))


def runtime_packages(*formats: str) -> dict[str, str]:
    """What the runtimes of formats (by default of all that any board runs) need there: import name -> pip's name."""
    kinds = [type(open_format(name)) for name in formats] or [k for k in registry.formats() if not k.special_device]
    return {name: package for kind in kinds for name, package in kind.board_packages.items()}


def pack(
    folder: Path,
    artifacts: Sequence[Artifact],
    plan: TimingPlan,
    options: Mapping[str, str],
    natives: Mapping[str, Path] = MappingProxyType({}),
    pythons: Mapping[str, str] = MappingProxyType({}),
    **more: Any,
) -> dict[str, list[str]]:
    """Fill ``folder``; ``more`` goes into plan.json (timed, temporary, environment).

    natives: format -> the library that its runtime needs there (``native.library``).
    pythons: format -> the interpreter that has its runtime, where it is another than the worker's.

    Returns the hash of every model file by artifact name, to compare with what the device says it loaded.
    """
    package = Path(__file__).parent / "board"
    for name in CARRIED:
        shutil.copyfile(package / name, folder / name)
    shutil.copyfile(plan.images, folder / "images.npy")
    encoded = []
    for index, file in enumerate(plan.encoded):
        encoded.append(f"encoded-{index}{file.suffix}")
        shutil.copyfile(file, folder / encoded[-1])
    entries, hashes = [], {}
    for artifact in artifacts:
        format_ = open_format(artifact.target)
        files, runtime, module = format_.files(artifact.path), format_.board_runtime(), f"runtime_{format_.name}"
        assert runtime is not None, f"{artifact.name} was packed for a device that cannot run it"
        shutil.copyfile(runtime, folder / f"{module}.py")
        library = natives.get(format_.name)
        if library is not None:
            shutil.copyfile(library, folder / library.name)
        (folder / artifact.name).mkdir()
        for file in files:
            copy = shutil.copytree if file.is_dir() else shutil.copyfile
            copy(file, folder / artifact.name / file.name)  # type: ignore[operator]
        hashes[artifact.name] = [sha256(file) for file in files]
        entries.append(
            {
                "name": artifact.name,
                "runtime": module,
                "packages": list(format_.board_packages.values()),
                "python": pythons.get(format_.name),
                "files": [f"{artifact.name}/{file.name}" for file in files],
                "settings": {
                    **format_.board_settings(artifact, options),
                    **({"detections": True} if artifact.output == "detections" else {}),
                    **({"native": library.name} if library is not None else {}),
                },
            }
        )
    write_json(
        folder / "plan.json",
        {
            "artifacts": entries,
            "images": "images.npy",
            "encoded": encoded,
            "spec": plan.spec.to_dict(),
            "timed": True,
            **{key: getattr(plan, key) for key in ("min_count", "min_seconds", "end_to_end_count", "threads")},
            **{key: getattr(plan, key) for key in ("warmup", "slice_ms", "slice_count", "seed", "time_limit_s")},
            **more,
        },
    )
    return hashes


def unpack(
    folder: Path, artifacts: Sequence[Artifact], hashes: Mapping[str, list[str]], plan: TimingPlan
) -> list[Measurement]:
    """What the worker wrote, checked: the file that ran is the one exported, and every image has an output."""
    answer = read_json(folder / "results.json")
    around = {key: answer[key] for key in ("before", "after", "seconds")}
    count = int(np.load(plan.images, mmap_mode="r").shape[0])
    measured = []
    for artifact in artifacts:
        result = answer["results"][artifact.name]
        if "skipped" in result:
            measured.append(Measurement(artifact.name, artifact.sha256, skipped=f"failed: {result['skipped']}"))
            continue
        if result["sha256"] != hashes[artifact.name]:
            raise DeviceError(f"{artifact.name} was corrupted in transfer to the device (its hash differs); try again")
        outputs = np.load(folder / f"{artifact.name}.npy", allow_pickle=False)
        if outputs.dtype != np.float32 or len(outputs) != count or not np.isfinite(outputs).all():
            reason = f"failed: outputs {outputs.dtype} {outputs.shape}, expected {count} rows of finite float32"
            measured.append(Measurement(artifact.name, artifact.sha256, skipped=reason))
            continue
        fields = [
            "samples_ms",
            "rounds",
            "runs_per_sample",
            "load_ms",
            "first_ms",
            "end_to_end_ms",
            "end_to_end_skipped",
            "threads",
        ]
        fields += ["runtime", "accelerator", "effective_precision", "peak_memory_bytes"]
        details = {
            key: result[key]
            for key in ("kernels", "primitives", "prepared_with", "timer_resolution_ms")
            if key in result
        }
        measured.append(
            Measurement(
                artifact.name,
                artifact.sha256,
                outputs=outputs,
                details={**details, **around},
                **{key: result[key] for key in fields if key in result},
            )
        )
    return measured


def follow(command: Sequence[str], plan: TimingPlan, what: str, explain: Callable[[int, bytes], str]) -> None:
    """Start the worker and show its progress until it ends; whatever happens, no process of it is left here.

    DeviceError when it hangs, or fails; ``explain`` makes a line of its exit code and stderr.
    """
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,  # closes with this process: the worker, here or there, then ends itself
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,  # Ctrl-C reaches this process alone, which then ends the group
        )
        try:
            for _ in track(_percents(process, plan.time_limit_s + _GRACE_S, what), what, total=100):
                pass
            code = process.wait()
        finally:
            end(process)
        if code != 0:
            errors.seek(0)
            raise DeviceError(f"{what}: {explain(code, errors.read())}")


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process that leads its own group, with everything it started; returns when all of it is gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    process.wait()
    deadline = time.monotonic() + _DYING_S
    with contextlib.suppress(ProcessLookupError, PermissionError, AttributeError):
        while time.monotonic() < deadline:  # those that it started are not ours to wait for
            os.killpg(process.pid, 0)
            time.sleep(0.01)
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()


def describe(
    command: Sequence[str],
    spec: str,
    limit_s: float,
    env: Mapping[str, str] | None = None,
    packages: Iterable[str] | None = None,
) -> dict[str, Any]:
    """What the worker, started by the words of ``command``, says of its machine; DeviceError when it does not start.

    packages: of which it says the versions, by pip's names; by default those of all runtimes.
    """
    words = [*command, str(Path(__file__).parent / "board" / "worker.py"), "describe"]
    words += runtime_packages().values() if packages is None else packages
    try:
        done = subprocess.run(words, capture_output=True, timeout=limit_s, check=True, env=env)
    except (OSError, subprocess.SubprocessError) as error:
        why = last_line(getattr(error, "stderr", None) or str(error))
        raise DeviceError(f"{spec}: {command[-1]} does not run the worker ({why})") from error
    return dict(json.loads(done.stdout))


def _percents(process: subprocess.Popen[bytes], limit_s: float, what: str) -> Iterator[int]:
    assert process.stdout is not None
    lines: queue.Queue[bytes | None] = queue.Queue()
    threading.Thread(target=_read_lines, args=(process.stdout, lines), daemon=True).start()
    deadline, shown = time.monotonic() + limit_s, 0
    while True:
        try:
            line = lines.get(timeout=max(deadline - time.monotonic(), 0))
        except queue.Empty:
            raise DeviceError(f"{what}: hung, no result within {limit_s:.0f} s; it was stopped") from None
        if line is None:
            return
        try:
            percent = int(100 * json.loads(line)["progress"])
        except (ValueError, KeyError, TypeError):  # a runtime or a login script that prints
            continue
        yield from range(shown, min(percent, 100))
        shown = max(shown, percent)


def _read_lines(stream: IO[bytes], lines: queue.Queue[bytes | None]) -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)
