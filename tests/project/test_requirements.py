"""What the extras say is what the packages import, and constraints.txt pins all that they bring."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator, Set
from importlib import metadata
from pathlib import Path
from typing import cast

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from deploy.requirements import requirements

ROOT = Path(__file__).resolve().parents[2]
LINES = [
    line
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = sorted(PROJECT["optional-dependencies"])


def environment(python: str) -> dict[str, str | Set[str]]:
    """What markers are judged by, with this version of Python."""
    return {
        **cast(dict[str, str], default_environment()),
        "python_version": python,
        "python_full_version": f"{python}.0",
    }


def pins(python: str) -> dict[str, Requirement]:
    """What is pinned on Linux with this version of Python, by name."""
    lines = [Requirement(line) for line in LINES]
    wanted = [line for line in lines if line.marker is None or line.marker.evaluate(environment(python))]
    found = {str(canonicalize_name(line.name)): line for line in wanted}
    assert len(found) == len(wanted), "two pins of one package hold at once"
    return found


def brought(extra: str, python: str) -> Iterator[Requirement]:
    """The extra's requirements, the base's, and theirs in turn, as far as they are installed here."""
    return closure([Requirement(line) for line in requirements(PROJECT, extra)], python)


def closure(queue: list[Requirement], python: str) -> Iterator[Requirement]:
    """`queue`, and what it requires in turn."""
    seen: set[str] = set()
    while queue:
        requirement = queue.pop()
        if str(requirement) in seen:
            continue
        seen.add(str(requirement))
        yield requirement
        try:
            lines = metadata.requires(requirement.name) or []
        except metadata.PackageNotFoundError:
            continue
        for line in lines:
            further = Requirement(line)
            extras = requirement.extras or {""}
            if further.marker is None or any(
                further.marker.evaluate({**environment(python), "extra": extra}) for extra in extras
            ):
                queue.append(further)


def test_every_line_pins_one_version_without_a_path_or_a_local_build() -> None:
    assert len(LINES) > 100
    for line in LINES:
        assert re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*( ; .+)?", line), line


@pytest.mark.parametrize("python", ["3.11", "3.12"])
@pytest.mark.parametrize("extra", EXTRAS)
def test_every_requirement_of_every_extra_is_pinned_within_its_range(extra: str, python: str) -> None:
    pinned = pins(python)
    checked = 0
    for requirement in brought(extra, python):
        pin = pinned.get(canonicalize_name(requirement.name))
        assert pin is not None, f"{requirement} is not in constraints.txt"
        (version,) = (specifier.version for specifier in pin.specifier)
        assert requirement.specifier.contains(version, prereleases=True), f"{pin} is outside of {requirement}"
        checked += 1
    assert checked >= len(PROJECT["optional-dependencies"][extra])


def test_the_extras_are_one_for_each_image_and_three_more() -> None:
    assert EXTRAS == ["dev", "drift", "pipelines", "sandbox", "serve", "train", "web"]


@pytest.mark.parametrize(
    ("package", "extras"),
    [
        ("kanary", ("web",)),
        ("tui", ()),
        ("components", ("train",)),
        ("pipelines", ("pipelines",)),
        ("serving", ("serve", "drift")),
        ("sandbox", ("sandbox",)),
    ],
)
def test_a_package_imports_only_what_its_extras_bring(package: str, extras: tuple[str, ...]) -> None:
    lines = [requirement for extra in extras for requirement in brought(extra, "3.11")]
    lines += closure([Requirement(line) for line in PROJECT["dependencies"]], "3.11")
    allowed = {canonicalize_name(requirement.name) for requirement in lines}
    owners = metadata.packages_distributions()
    foreign = {
        module
        for module in imported(ROOT / package)
        if not any(canonicalize_name(owner) in allowed for owner in owners.get(module, [module]))
    }
    assert foreign == set()


def imported(folder: Path) -> set[str]:
    """Top-level modules of others that the files below `folder` import, within functions too."""
    found: set[str] = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found.update(alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    return found - set(sys.stdlib_module_names) - {"kanary", "components", "pipelines", "serving", "sandbox", "tui"}
