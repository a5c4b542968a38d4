"""Linux boards through ssh: ``ssh://pi@board:2222?python=/opt/py/bin/python3&threads=4&wheels=send``.

Needs Python 3.8, NumPy and the formats' runtimes on the board; with ``wheels=send`` (or a folder of wheels) only
Python: the runtime then travels with the benchmark.  Everything is in one temporary folder there, which is removed
at the end; if the connection is lost, the worker notices, ends itself and removes it.  ``name=new`` files the results
apart from those of another Python on the same board.
"""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from softedge.bench import job
from softedge.bench.base import DeviceError, FolderDevice, Measurement, Plan
from softedge.bench.ssh import wheels
from softedge.bench.ssh.remote import Connection, parse
from softedge.export.base import open_format
from softedge.files import temporary_folder
from softedge.records import Artifact

# Runs there before anything is copied; prints one JSON line. Python 3 of any age.
_PROBE = """
import json, platform, shutil, sys
told = {"python": "%d.%d" % sys.version_info[:2], "machine": platform.machine(), "glibc": platform.libc_ver()[1]}
told["free_bytes"] = shutil.disk_usage(sys.argv[1]).free
told["missing"] = {}
for name, package in json.loads(sys.argv[2]).items():
    try:
        __import__(name)
    except Exception as error:
        told["missing"][package] = str(error).splitlines()[0] if str(error) else type(error).__name__
print("softedge-probe " + json.dumps(told))
"""


class Ssh(FolderDevice):
    """A board with Python behind an ssh server."""

    sends = ("onnx", "openvino")  # the formats whose runtimes ``wheels=`` brings along; others must be there already
    silent_options = ("python", "folder", "wheels", "config")

    def __init__(self, spec: str, address: str, options: Mapping[str, str]):
        self.known_options = ("name", *job.options(), *self.silent_options)
        self.packages = {"numpy": "numpy", **job.runtime_packages(*self.sends), "PIL": "pillow"}
        super().__init__(spec, address, options)
        login, port = parse(spec, address)
        self.connection = Connection(self.label, login, port, self.options.get("config", ""))
        self.python = self.options.get("python", "python3")
        self.remote = ""  # the folder there

    def __enter__(self) -> Self:
        self.connection.__enter__()
        try:
            self._prepare()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self.remote:
                with contextlib.suppress(DeviceError):  # unreachable: the worker there cleans up by itself
                    self.connection.run(["rm", "-rf", self.remote], "clean up", timeout=30)
        finally:
            self.connection.close()

    def _prepare(self) -> None:
        base = self.options.get("folder", "/tmp")
        made = self.connection.run(["mktemp", "-d", f"{base}/softedge.XXXXXXXX"], f"make a folder in {base}")
        self.remote = made.strip().splitlines()[-1]
        self.about = self._probe()
        if self.options.get("wheels") and self.about["missing"]:
            self._send_wheels(self.options["wheels"])
        if "numpy" in self.about["missing"]:
            raise DeviceError(f"{self.label}: {self._how_to_get('numpy', 'numpy onnxruntime')}")

    def _probe(self, site: str = "") -> dict[str, Any]:
        words = ["env", f"PYTHONPATH={site}"] if site else []
        try:
            text = self.connection.run(
                [*words, self.python, "-c", _PROBE, self.remote, json.dumps(self.packages)],
                "ask its Python",
                timeout=120,
            )
        except DeviceError as error:
            if "not found" not in str(error) and "No such file" not in str(error):
                raise
            raise DeviceError(
                f"{self.label}: no {self.python} there; install it (Debian: sudo apt install python3 python3-pip) "
                "or name another: ?python=/path/to/python3"
            ) from error
        for line in text.splitlines():  # a login script may print before it
            if line.startswith("softedge-probe "):
                return dict(json.loads(line.removeprefix("softedge-probe ")))
        raise DeviceError(f"{self.label}: {self.python} there did not answer as Python 3 does; name another: ?python=")

    def _send_wheels(self, source: str) -> None:
        """Unpacked wheels into ``site`` beside the benchmark: nothing is installed there."""
        wanted = list(self.about["missing"])
        if source == "send":
            found = wheels.fetch(wanted, self.about["python"], self.about["machine"], self.about["glibc"])
        else:
            given = Path(source)
            wanted = [name for name in wanted if name == "numpy" or any(given.glob(f"{name}-*.whl"))]
            found = wheels.newest(given, wanted)
        with temporary_folder("wheels") as folder:
            wheels.unpack(found, folder / "site")
            self.connection.upload(folder, self.remote)
        self.about = {**self._probe(f"{self.remote}/site"), "sent": [path.name for path in found]}

    def _how_to_get(self, missing: str, packages: str) -> str:
        return (
            f"{missing} is missing for {self.python} ({self.about['python']}, {self.about['machine']}) there: "
            f"{self.about['missing'][missing]}; install it: {shlex.quote(self.python)} -m pip install {packages}; "
            "or let softedge send it: ?wheels=send"
        )

    def describe(self) -> dict[str, Any]:
        package = (Path(__file__).parents[1] / "board" / "system.py").read_bytes()
        asked = f"describe({list(job.runtime_packages().values())})"
        script = package + f"\nimport json\nprint('softedge-system ' + json.dumps({asked}))\n".encode()
        text = self.connection.run([*self._environment(), self.python, "-"], "ask what it is", 120, script)
        told = next(line for line in text.splitlines() if line.startswith("softedge-system "))
        sent = {"sent_wheels": self.about["sent"]} if "sent" in self.about else {}
        return {**json.loads(told.removeprefix("softedge-system ")), **sent}

    def _environment(self) -> list[str]:
        return ["env", f"PYTHONPATH={self.remote}/site"] if "sent" in self.about else []

    def why_not(self, artifact: Artifact) -> str:
        if reason := super().why_not(artifact):
            return reason
        needed = open_format(artifact.target).board_packages.values()
        missing = next((package for package in needed if package in self.about["missing"]), "")
        return f"not run: {self._how_to_get(missing, missing)}" if missing else ""

    def work(self, folder: Path, artifacts: Sequence[Artifact], plan: Plan) -> list[Measurement]:
        outgoing, incoming = folder / "out", folder / "in"
        outgoing.mkdir()
        incoming.mkdir()
        hashes = job.pack(outgoing, artifacts, plan, self.options, temporary=True)
        needed = sum(path.stat().st_size for path in outgoing.rglob("*") if path.is_file())
        if self.about["free_bytes"] < 2 * needed:
            free, wanted = self.about["free_bytes"] / 1e6, 2 * needed / 1e6
            raise DeviceError(
                f"{self.label}: {free:.0f} MB are free in {self.remote.rpartition('/')[0]} there, the benchmark needs "
                f"{wanted:.0f} MB; free some space, or name another ?folder="
            )
        self.connection.upload(outgoing, self.remote)
        self._start(plan)
        files = ["results.json", *(f"{artifact.name}.npy" for artifact in artifacts)]
        present = self.connection.run(["ls", self.remote], "list the results").split()
        self.connection.download([file for file in files if file in present], self.remote, incoming)
        return job.unpack(incoming, artifacts, hashes, replace(plan, images=outgoing / "images.npy"))

    def _start(self, plan: Plan) -> None:
        words = [*self._environment(), self.python, f"{self.remote}/worker.py", "run", self.remote]
        job.follow(self.connection.command(words), plan, f"bench {self.label}", self.connection.explain)
