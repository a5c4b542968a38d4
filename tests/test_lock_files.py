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
LOCKS: dict[tuple[str, ...], tuple[str, ...]] = {  # what is installed together -> the extras of pyproject.toml
    ("requirements.lock",): (),
    ("requirements.lock", "requirements-test.lock"): ("test", "android"),
}


def entries(*names: str) -> list[tuple[Requirement, list[str]]]:
    """Every package of lock files with its hashes."""
    text = "".join((ROOT / name).read_text() for name in names)
    parts = re.split(r"\n(?=\w)", "\n" + "\n".join(line for line in text.splitlines() if line[:1] not in "#-"))
    return [(Requirement(p.split("\\")[0].strip()), re.findall(r"--hash=(\S+)", p)) for p in parts if p.strip()]


@pytest.mark.parametrize("names", LOCKS)
def test_lock_files_pin_every_package_to_one_version_and_its_hashes(names):
    for requirement, hashes in entries(*names):
        (specifier,) = requirement.specifier
        assert specifier.operator == "==" and "*" not in specifier.version, requirement
        assert hashes and all(re.fullmatch("sha256:[0-9a-f]{64}", value) for value in hashes), requirement


@pytest.mark.parametrize(("names", "extras"), LOCKS.items())
def test_lock_files_hold_what_the_project_asks_for(names, extras):
    pinned: dict[str, list[str]] = {}
    for requirement, _ in entries(*names):
        pinned.setdefault(canonicalize_name(requirement.name), []).append(next(iter(requirement.specifier)).version)
    project = PROJECT["project"]
    asked = [*project["dependencies"], *PROJECT["build-system"]["requires"]]
    asked += [line for extra in extras for line in project["optional-dependencies"][extra]]
    for line in asked:
        wanted = Requirement(line)
        versions = pinned.get(canonicalize_name(wanted.name), [])
        assert versions and all(wanted.specifier.contains(v) for v in versions), f"{line}: {versions}; run make lock"


def test_tests_run_with_the_versions_that_users_get():
    assert "--requirement requirements.lock" in (ROOT / "requirements-test.lock").read_text().splitlines()
    names = ("requirements.lock", "requirements-test.lock")
    users, tests = ({canonicalize_name(requirement.name) for requirement, _ in entries(name)} for name in names)
    assert tests and not users & tests, "one version of a package, in one of the files"


def script(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / ".ci" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def versions():
    return script("versions")


def test_what_users_install_is_locked_once():
    users = "# made by\na==1 \\\n    --hash=sha256:0\nb==2 \\\n    --hash=sha256:1\n"
    whole = users + "c==3 \\\n    --hash=sha256:2\n    --hash=sha256:3\n"
    kept = "# made by\n--requirement requirements.lock\nc==3 \\\n    --hash=sha256:2\n    --hash=sha256:3\n"
    assert script("lock").rest(whole, users) == kept


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
