"""Runs exported models on the machine it is started on, and writes raw samples and outputs.

    python3 worker.py describe PACKAGE ...   -> JSON on stdout, with the versions of the packages
    python3 worker.py run FOLDER             reads FOLDER/plan.json, writes FOLDER/results.json and FOLDER/<name>.npy

Needs Python 3.8 or newer, NumPy and what the runtimes of the formats need.  Nothing of softedge is imported: the files
of this folder travel to boards, and with them the ``board_runtime.py`` of each format that is measured.  That defines

    class Runtime:
        def __init__(self, path, settings): ...  # load the main file; raise LookupError for what is missing here
        load_ms: float                           # what that took, the import of the runtime left out
        def infer(self, image): ...              # uint8 (1, size, size, 3) -> float32 (1, outputs)
        def effective(self, image): ...          # dict: runtime, accelerator, threads, effective_precision, kernels

``settings``: what ``Format.board_settings`` gave, ``threads``, ``detections`` (true) for a detector, ``native``: the
name of the library beside it that was made of ``Format.board_source``.  It may import ``kernels`` and ``detections``.

Every artifact gets a process of its own, so that its load time and memory are its own.  The processes take turns:
one round gives each a slice of timed inferences, in a random order, while the others sleep.
With ``"temporary": true`` in the plan, closing this process's stdin (a lost connection does that) ends it and its
children and removes FOLDER.
"""

from __future__ import annotations

import json
import os
import queue
import random
import shutil
import subprocess
import sys
import threading
import time
from typing import Any

import system  # type: ignore[import-not-found]

# onnxruntime and OpenVINO report usage to their makers unless they are told not to, here or in the environment of what
# this process starts. Before the first import of either.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

STALLED_S = 120.0  # an artifact that does not answer for so long has hung


class Failed(Exception):
    """This artifact cannot be measured here; the message is the reason."""


class Turn:
    """One artifact's process: send it a command, wait for its answer."""

    def __init__(self, folder: str, index: int, python: str | None, environment: dict[str, str]):
        if python:  # this one's packages are not for it
            environment = {key: value for key, value in environment.items() if not key.startswith("PYTHON")}
        command = [python or sys.executable, os.path.abspath(__file__), "serve", folder, str(index)]
        self.errors = open(os.path.join(folder, f"errors-{index}.txt"), "w+b")  # noqa: SIM115  (closed in end)
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, env=environment
        )
        self.answers: queue.Queue = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.answers.put(line)
        self.answers.put(None)

    def ask(self, command: str, deadline: float) -> Any:
        """The answer to a command; Failed when the process says so, dies, hangs, or the deadline passes."""
        if command:
            try:
                assert self.process.stdin is not None
                self.process.stdin.write(command.encode() + b"\n")
                self.process.stdin.flush()
            except OSError:
                pass  # it is gone; the answer queue says how
        patience = deadline - time.monotonic()
        if command != "finish":  # which classifies every image that was not timed: minutes on a slow board
            patience = min(STALLED_S, patience)
        try:
            line = self.answers.get(timeout=max(patience, 0.1))
        except queue.Empty:
            raise Failed(f"hung: no answer within {max(patience, 0.1):.0f} s") from None
        if line is None:
            raise Failed(self._last_words())
        answer = json.loads(line)
        if "failed" in answer:
            raise Failed(answer["failed"])
        return answer

    def _last_words(self) -> str:
        code = self.process.wait()
        self.errors.seek(0)
        lines = [line.strip() for line in self.errors.read().decode(errors="replace").splitlines() if line.strip()]
        how = f"ended with exit code {code}"
        if code < 0:
            how = f"was killed by signal {-code}" + (" (out of memory?)" if code == -9 else "")
        return f"the process {how}" + (f"; it said: {lines[-1][:300]}" if lines else "")

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.errors.close()


def run(folder: str) -> None:
    """Measure every artifact of the plan; results.json appears at the end, whole."""
    with open(os.path.join(folder, "plan.json")) as file:
        plan = json.load(file)
    environment = {**os.environ, "OMP_NUM_THREADS": str(plan["threads"]), **plan.get("environment", {})}
    deadline = time.monotonic() + plan["time_limit_s"]
    names = [artifact["name"] for artifact in plan["artifacts"]]
    results: dict[str, dict[str, Any]] = {name: {"samples_ms": [], "rounds": []} for name in names}
    turns: dict[str, Turn] = {}

    def ask(name: str, command: str) -> dict[str, Any]:
        try:
            return turns[name].ask(command, deadline)
        except Failed as failure:
            results[name] = {"skipped": str(failure)}
            turns.pop(name).end()
            return {}

    if plan.get("temporary"):
        _die_with_stdin(turns, folder)
    begun = time.monotonic()
    before = system.conditions()
    try:
        for index, name in enumerate(names):  # one after the other: loading is timed too
            turns[name] = Turn(folder, index, plan["artifacts"][index].get("python"), environment)
            results[name].update(ask(name, ""))
        if plan["timed"]:
            _rounds(plan, results, turns, ask)
            for name in list(turns):
                results[name].update(ask(name, "end_to_end"))
        for name in list(turns):
            results[name].update(ask(name, "finish"))
    finally:
        for turn in list(turns.values()):
            turn.end()
    answer = {
        "results": results,
        "before": before,
        "after": system.conditions(),
        "system": system.describe(),
        "seconds": time.monotonic() - begun,
    }
    partial = os.path.join(folder, "results.json.partial")
    with open(partial, "w") as file:
        json.dump(answer, file)
    os.replace(partial, os.path.join(folder, "results.json"))


def _rounds(plan: dict[str, Any], results: dict[str, Any], turns: dict[str, Turn], ask: Any) -> None:
    """Give every artifact a slice per round until each has enough samples and enough measured time."""
    shuffle = random.Random(plan["seed"])
    totals = dict.fromkeys(turns, 0.0)
    number = 0

    def progress(name: str) -> float:
        count = len(results[name]["samples_ms"]) / plan["min_count"]
        return min(count, totals[name] / 1000 / plan["min_seconds"] if plan["min_seconds"] else count, 1.0)

    while True:
        waiting: list[str] = [name for name in turns if progress(name) < 1.0]
        if not waiting:
            return
        shuffle.shuffle(waiting)
        for name in waiting:
            samples = ask(name, "round").get("samples_ms", [])
            if samples:
                results[name]["samples_ms"] += samples
                results[name]["rounds"] += [number] * len(samples)
                totals[name] += sum(samples) * results[name]["runs_per_sample"]
        number += 1
        if turns:
            print(json.dumps({"progress": min(progress(name) for name in turns), "round": number}), flush=True)


def _die_with_stdin(turns: dict[str, Turn], folder: str) -> None:
    """When whoever started us is gone (its end of the pipe closes), leave no process and no file behind."""

    def watch() -> None:
        while os.read(0, 1):  # not sys.stdin: a thread in there blocks the interpreter's exit
            pass
        for turn in list(turns.values()):
            turn.process.kill()
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(3)

    threading.Thread(target=watch, daemon=True).start()


def main(arguments: list[str]) -> None:
    if arguments[:1] == ["describe"]:
        print(json.dumps(system.describe(arguments[1:])))
    elif len(arguments) == 2 and arguments[0] == "run":
        run(arguments[1])
    elif len(arguments) == 3 and arguments[0] == "serve":
        import subject  # type: ignore[import-not-found]

        subject.serve(arguments[1], int(arguments[2]))
    else:
        sys.exit("usage: worker.py describe [PACKAGE ...] | run FOLDER")


if __name__ == "__main__":
    main(sys.argv[1:])
