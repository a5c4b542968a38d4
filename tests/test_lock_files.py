"""The lock files hold what pyproject.toml asks for, with a hash for every file; the job that looks for what breaks."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = (ROOT / "pyproject.toml").read_text()
PROJECT = tomllib.loads(PYPROJECT)
LOCKS = {
    "requirements.lock": (),
    "requirements-test.lock": ("test", "android"),
}


def entries(name: str) -> list[tuple[Requirement, list[str]]]:
    """Every package of a lock file with its hashes."""
    text = (ROOT / name).read_text()
    parts = re.split(r"\n(?=\w)", "\n" + "\n".join(line for line in text.splitlines() if not line.startswith("#")))
    return [(Requirement(p.split("\\")[0].strip()), re.findall(r"--hash=(\S+)", p)) for p in parts if p.strip()]


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_file_pins_every_package_to_one_version_and_its_hashes(name):
    for requirement, hashes in entries(name):
        (specifier,) = requirement.specifier
        assert specifier.operator == "==" and "*" not in specifier.version, requirement
        assert hashes and all(re.fullmatch("sha256:[0-9a-f]{64}", value) for value in hashes), requirement


@pytest.mark.parametrize(("name", "extras"), LOCKS.items())
def test_a_lock_file_holds_what_the_project_asks_for(name, extras):
    pinned: dict[str, list[str]] = {}
    for requirement, _ in entries(name):
        pinned.setdefault(canonicalize_name(requirement.name), []).append(next(iter(requirement.specifier)).version)
    project = PROJECT["project"]
    asked = [*project["dependencies"], *PROJECT["build-system"]["requires"]]
    asked += [line for extra in extras for line in project["optional-dependencies"][extra]]
    for line in asked:
        wanted = Requirement(line)
        versions = pinned.get(canonicalize_name(wanted.name), [])
        assert versions and all(wanted.specifier.contains(v) for v in versions), f"{line}: {versions}; run make lock"


def test_tests_run_with_the_versions_that_users_get():
    users, tests = ({str(r) for r, _ in entries(name)} for name in LOCKS)
    assert users <= tests


@pytest.fixture
def versions():
    spec = importlib.util.spec_from_file_location("versions", ROOT / ".ci" / "versions.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_lowest_versions_are_the_lower_bounds(versions):
    text = '[project]\ndependencies = ["a>=1.5", "b>=2,<3"]\noptional-dependencies = {test = ["c", "d==4.1"]}\n'
    assert versions.lowest(versions.requirements(text)) == ["a==1.5", "b==2", "d==4.1"]


def test_every_lower_bound_of_the_project_is_tried(versions):
    assert set(versions.EXTRAS) == set(PROJECT["project"]["optional-dependencies"])
    tried = {line.partition("==")[0] for line in versions.lowest(versions.requirements(PYPROJECT))}
    bounded = set(re.findall(r'"([\w-]+)>=', PYPROJECT.partition("[project]")[2].partition("[dependency-groups]")[0]))
    assert bounded == tried and {"torch", "executorch", "ncnn", "ziglang", "pytest"} <= tried


def test_a_lock_file_is_read_for_this_python(versions):
    text = 'a==1.0 \\\n    --hash=sha256:0\nb==2 ; python_full_version < "3"\nB_c==3 ; python_full_version >= "3"\n'
    assert versions.locked(text) == {"a": "1.0", "b-c": "3"}


def test_the_package_that_breaks_the_tests_is_named(versions):
    """Tests pass while "bad" is at 1: of three changed packages it alone is named, and unchanged ones are not tried."""
    installed, good = {"bad": "2", "fine": "2", "other": "2", "same": "1"}, dict.fromkeys(["bad", "fine", "other"], "1")
    tried = []

    def passes_with(name: str, version: str) -> bool:
        tried.append(name)
        return {**installed, name: version}["bad"] == "1"

    assert versions.culprits(installed, {**good, "same": "1", "absent": "1"}, passes_with) == ["bad 2"]
    assert tried == ["bad", "fine", "other"]
