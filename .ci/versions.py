"""Try the newest and the lowest versions that pyproject.toml allows, and name the packages that break the tests.

    python .ci/versions.py [newest | lowest]      or: make versions

For a weekly job: each half installs several GB into .venv-newest or .venv-lowest and runs the tests.  Where they fail,
one package after another goes back to the version of the lock files, until the failed tests pass.
Exit code 0: all pass; 1: something breaks, and the output says what.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
import venv
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
KINDS = ("newest", "lowest")
LOCKS = ("requirements.lock", "requirements-test.lock")
EXTRAS = ("test", "executorch", "ncnn", "android")  # all: the formats and the compiler have tests, too


def requirements(pyproject: str) -> list[Requirement]:
    """What the package and all its extras ask for, from the text of pyproject.toml."""
    project = tomllib.loads(pyproject)["project"]
    optional = [line for lines in project["optional-dependencies"].values() for line in lines]
    return [Requirement(line) for line in (*project["dependencies"], *optional)]


def lowest(wanted: Iterable[Requirement]) -> list[str]:
    """Each package at the lower bound of its requirement; those without one are left free."""
    bounds = {r.name: s.version for r in wanted for s in r.specifier if s.operator in (">=", "==")}
    return [f"{name}=={version}" for name, version in bounds.items()]


def locked(text: str) -> dict[str, str]:
    """Package -> version of a lock file; of packages locked by Python version, those for this Python."""
    found = {}
    for line in text.splitlines():
        if line[:1].isalnum():
            entry = Requirement(line.rstrip(" \\"))
            if entry.marker is None or entry.marker.evaluate():
                found[canonicalize_name(entry.name)] = next(iter(entry.specifier)).version
    return found


def culprits(
    installed: Mapping[str, str], good: Mapping[str, str], passes_with: Callable[[str, str], bool]
) -> list[str]:
    """The packages whose version of the lock file alone makes the failed tests pass.

    passes_with: a package and the version to try it at, the others as installed.
    """
    changed = {name: version for name, version in good.items() if installed.get(name, version) != version}
    return [f"{name} {installed[name]}" for name, version in changed.items() if passes_with(name, version)]


class Environment:
    """A virtual environment of its own for one kind of versions."""

    def __init__(self, kind: str):
        self.folder = ROOT / f".venv-{kind}"
        self.python = self.folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")

    def install(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [self.python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *words]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    def test(self, *words: str) -> bool:
        return subprocess.run([self.python, "-m", "pytest", "-q", *words], cwd=ROOT).returncode == 0

    def installed(self) -> dict[str, str]:
        command = [self.python, "-m", "pip", "list", "--format=freeze", "--disable-pip-version-check"]
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        return {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines)}

    def passes_with(self, name: str, version: str) -> bool:
        """The tests that failed last, with one package at another version; it is put back afterwards."""
        before = self.installed()[name]
        try:
            return self.install("--no-deps", f"{name}=={version}").returncode == 0 and self.test("--last-failed")
        finally:
            self.install("--no-deps", f"{name}=={before}")


def broken(kind: str) -> list[str]:
    """What is wrong with the newest or the lowest versions, one line each; empty when the tests pass."""
    environment = Environment(kind)
    venv.create(environment.folder, clear=True, with_pip=True)
    bounds = lowest(requirements((ROOT / "pyproject.toml").read_text())) if kind == "lowest" else []
    done = environment.install("--editable", f".[{','.join(EXTRAS)}]", *bounds)
    if done.returncode != 0:
        reasons = [line for line in done.stderr.splitlines() if line.strip()]
        return [f"{kind}: cannot be installed together: {line}" for line in reasons[-6:]]
    if environment.test():
        return []
    installed, good = environment.installed(), locked("".join((ROOT / name).read_text() for name in LOCKS))
    names = culprits(installed, good, environment.passes_with)
    if names:
        return [f"{kind}: {name} breaks the tests above, {good[name.split()[0]]} does not" for name in names]
    changed = [f"{name} {installed[name]}" for name in good if installed.get(name, good[name]) != good[name]]
    return [f"{kind}: tests fail, and no package alone is the cause; other than locked: {', '.join(changed) or 'none'}"]


def main(kinds: list[str]) -> int:
    if unknown := set(kinds) - set(KINDS):
        print(f"unknown: {', '.join(sorted(unknown))}; give newest or lowest, or nothing for both", file=sys.stderr)
        return 2
    lines = [line for kind in kinds or KINDS for line in broken(kind)]
    print("\n".join(lines) or f"{' and '.join(kinds or KINDS)} versions: all tests pass")
    return 1 if lines else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
