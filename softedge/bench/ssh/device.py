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
from typing import Any, ClassVar, Self

from softedge import registry
from softedge.bench import job, native
from softedge.bench.base import DeviceError, FolderDevice, Measurement, TimingPlan
from softedge.bench.ssh import wheels
from softedge.bench.ssh.remote import Connection, parse
from softedge.export.base import open_format
from softedge.files import temporary_folder
from softedge.records import Artifact

# Runs there before anything is copied; prints one JSON line. Python 3 of any age.
_PROBE = """
import json, platform, shutil, sys
facts = {"python": "%d.%d" % sys.version_info[:2], "machine": platform.machine(), "glibc": platform.libc_ver()[1]}
try:
    facts["board"] = open("/proc/device-tree/model").read().strip("\\0\\n ")
except (OSError, UnicodeDecodeError):
    facts["board"] = ""
facts["free_bytes"] = shutil.disk_usage(sys.argv[1]).free
facts["missing"] = {}
for name, package in json.loads(sys.argv[2]).items():
    try:
        __import__(name)
    except Exception as error:
        cause = error.__cause__ or error  # numpy wraps what it says in a page of advice
        facts["missing"][package] = (str(cause).strip().splitlines() or [type(cause).__name__])[0]
print("softedge-probe " + json.dumps(facts))
"""
EMULATED = "linux,dummy-virt"  # how a whole machine that qemu makes up names itself
NOT_TIMED = "not run: this board is emulated by qemu, which says nothing about a board's speed"


class Ssh(FolderDevice):
    """A board with Python behind an ssh server."""

    programs: ClassVar[Mapping[str, str]] = {"ssh://...": "ssh"}
    silent_options = ("python", "folder", "wheels", "config")

    def __init__(self, spec: str, address: str, options: Mapping[str, str]):
        self.known_options = ("name", *job.options(), *self.silent_options)
        self.packages = {"numpy": "numpy", **job.runtime_packages(), "PIL": "pillow"}
        super().__init__(spec, address, options)
        login, port = parse(spec, address)
        self.connection = Connection(self.label, login, port, self.options.get("config", ""))
        self.python = self.options.get("python", "python3")
        self.remote = ""  # the folder there
        self.sent: dict[str, str] = {}  # package -> its wheel that was sent
        self.natives: dict[str, Path] = {}  # format -> the library that its runtime needs there
        self.unsent: dict[str, str] = {}  # package -> why none was

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
        answer = self.connection.run(["mktemp", "-d", f"{base}/softedge.XXXXXXXX"], f"make a folder in {base}")
        self.remote = answer.strip().splitlines()[-1]
        self.about = self._probe()
        if "numpy" in self.about["missing"] and "wheels" not in self.options:
            raise DeviceError(f"{self.label}: {self._how_to_get('numpy', 'numpy onnxruntime')}")

    def prepare(self, artifacts: Sequence[Artifact]) -> None:
        """Send what is missing there for these files, and nothing else: a board's disk may be small."""
        if "wheels" not in self.options:
            return
        refused = super().why_not
        formats = [open_format(name) for name in dict.fromkeys(a.target for a in artifacts if not refused(a))]
        wanted = ["numpy", "pillow", *(package for one in formats for package in one.board_packages.values())]
        tried = {*self.sent, *self.unsent}
        if wanted := [name for name in dict.fromkeys(wanted) if name in self.about["missing"] and name not in tried]:
            self._send_wheels(wanted)
        if "numpy" in self.about["missing"]:
            raise DeviceError(f"{self.label}: {self._why_missing('numpy')}")

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

    def _send_wheels(self, wanted: Sequence[str]) -> None:
        """Unpacked wheels into ``site`` beside the benchmark: nothing is installed there."""
        source, files = self.options["wheels"], []
        for package in wanted:
            try:
                if source == "send":
                    files += wheels.fetch([package], *self._there())
                else:
                    files += wheels.newest(Path(source), [package])
            except DeviceError as error:  # the other formats can still be measured
                self.unsent[package] = str(error)
            else:
                self.sent[package] = files[-1].name
        with temporary_folder("wheels") as folder:
            wheels.unpack(files, folder / "site")
            self.connection.upload(folder, self.remote)
        self.about = self._probe(f"{self.remote}/site")
        for kind in registry.formats():
            if open_format(kind.name).board_source() is not None:  # it needs no Python module of what was sent
                for package in self.sent.keys() & kind.board_packages.values():
                    self.about["missing"].pop(package, None)

    def _how_to_get(self, missing: str, packages: str) -> str:
        return (
            f"{missing} is missing for {self.python} ({self.about['python']}, {self.about['machine']}) there: "
            f"{self.about['missing'][missing]}; install it: {shlex.quote(self.python)} -m pip install {packages}; "
            "or let softedge send it: ?wheels=send"
        )

    def describe(self) -> dict[str, Any]:
        package = (Path(__file__).parents[1] / "board" / "system.py").read_bytes()
        call = f"describe({list(job.runtime_packages().values())})"
        script = package + f"\nimport json\nprint('softedge-system ' + json.dumps({call}))\n".encode()
        text = self.connection.run([*self._environment(), self.python, "-"], "ask what it is", 120, script)
        answer = next(line for line in text.splitlines() if line.startswith("softedge-system "))
        sent = {"sent_wheels": list(self.sent.values())} if self.sent else {}
        emulated = {"emulated": True} if self.about["board"] == EMULATED else {}
        return {**json.loads(answer.removeprefix("softedge-system ")), **sent, **emulated}

    def _environment(self) -> list[str]:
        return ["env", f"PYTHONPATH={self.remote}/site"] if self.sent else []

    def why_not(self, artifact: Artifact) -> str:
        if reason := super().why_not(artifact):
            return reason
        needed = open_format(artifact.target).board_packages.values()
        if missing := next((package for package in needed if package in self.about["missing"]), ""):
            return f"not run: {self._why_missing(missing)}"
        if not self.sent.keys() & needed:
            return ""
        return native.why_not(self.natives, open_format(artifact.target), *self._there())

    def _there(self) -> tuple[str, str, str]:
        return self.about["python"], self.about["machine"], self.about["glibc"]

    def _why_missing(self, package: str) -> str:
        """Why a runtime is not there: no wheel could be sent, or none was asked for."""
        if package in self.unsent:
            return f"{package} is missing for {self.python} there: {self.unsent[package]}"
        return self._how_to_get(package, package)

    def run(self, artifacts: Sequence[Artifact], plan: TimingPlan) -> list[Measurement]:
        self.prepare(artifacts)
        return super().run(artifacts, plan)

    def work(self, folder: Path, artifacts: Sequence[Artifact], plan: TimingPlan) -> list[Measurement]:
        outgoing, incoming = folder / "out", folder / "in"
        outgoing.mkdir()
        incoming.mkdir()
        timed = self.about["board"] != EMULATED
        hashes = job.pack(outgoing, artifacts, plan, self.options, self.natives, temporary=True, timed=timed)
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
        measurements = job.unpack(incoming, artifacts, hashes, replace(plan, images=outgoing / "images.npy"))
        return measurements if timed else [one if one.skipped else _untimed(one) for one in measurements]

    def _start(self, plan: TimingPlan) -> None:
        words = [*self._environment(), self.python, f"{self.remote}/worker.py", "run", self.remote]
        job.follow(self.connection.command(words), plan, f"bench {self.label}", self.connection.explain)


def _untimed(measurement: Measurement) -> Measurement:
    return replace(measurement, not_timed=NOT_TIMED, load_ms=None, first_ms=None)
