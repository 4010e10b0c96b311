"""Makes one environment play many images: a worker may import only what its step's image would have.

An image is known by the extras of the `kanary` distribution that are installed in it; everything outside the closure
of those extras cannot be imported, as it could not be there. Standard library and the user's own modules are free.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_OURS = "kanary"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_EXTRA = re.compile(r"""extra\s*==\s*['"]([^'"]+)['"]""")
_OWN_EXTRAS = re.compile(r"\[([^\]]*)\]")
_ALWAYS = frozenset({"pip", "setuptools", "wheel"})
_hidden: list[ModuleType] = []


class _Hide(MetaPathFinder):
    """In place of the finders it was made from: finds what they find, but never a blocked top-level module."""

    def __init__(self, finders: list[MetaPathFinder], blocked: frozenset[str]) -> None:
        self.finders = finders
        self.blocked = blocked

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """None for a blocked module: an import then fails, and a probe finds nothing, just as in the image."""
        if fullname.partition(".")[0] in self.blocked:
            return None
        specs = (finder.find_spec(fullname, path, target) for finder in self.finders)
        return next((spec for spec in specs if spec is not None), None)


@dataclass(frozen=True)
class Guard:
    """What a worker may not import, top-level, and which of its parent's modules it has to forget for that."""

    blocked: frozenset[str]
    loaded: tuple[str, ...]


@cache
def guard(extras: tuple[str, ...]) -> Guard:
    """The guard of an image with these extras. For a parent: a worker that looked through its modules would copy
    the memory that their names are in."""
    blocked = blocked_modules(extras)
    return Guard(blocked, tuple(name for name in sys.modules if name.partition(".")[0] in blocked))


def install(found: Guard) -> None:
    """Hide what is blocked from now on in this process, what is loaded already included."""
    # Kept: to take a module apart costs more than to leave it.
    _hidden.extend(sys.modules.pop(name) for name in found.loaded if name in sys.modules)
    sys.meta_path[:] = [_Hide(list(sys.meta_path), found.blocked)]  # type: ignore[arg-type]  # typeshed's own protocol


def explain(error: BaseException, blocked: frozenset[str], image: str) -> str:
    """The hint that belongs to an import that failed because of `install`; empty for any other error."""
    if not isinstance(error, ModuleNotFoundError) or (error.name or "").partition(".")[0] not in blocked:
        return ""
    return f" in the image {image or 'of this step'} (it is installed on this machine, but not in that image)"


@cache
def blocked_modules(extras: tuple[str, ...]) -> frozenset[str]:
    """Top-level modules that are installed here but not in an image with these extras of ours.

    `"=kfp"` stands for that distribution with what it needs (a plain `python` image with kfp installed), and
    `"@/a/folder"` for all that is installed in the folder.
    """
    roots = [root for root in map(_distribution, extras) if root is not None]
    folders = [extra[1:] for extra in extras if extra.startswith("@")]
    roots += [(found.name, ()) for folder in folders for found in metadata.distributions(path=[folder])]
    ours = tuple(extra for extra in extras if extra[0] not in "=@")
    if ours or not extras:
        roots.append((_OURS, ours))
    allowed = closure(roots)
    return frozenset(
        module
        for module, owners in metadata.packages_distributions().items()
        if not any(normalise(owner) in allowed for owner in owners)
    )


def _distribution(extra: str) -> tuple[str, tuple[str, ...]] | None:
    return wanted(extra[1:], ()) if extra.startswith("=") else None


def closure(roots: Iterable[tuple[str, tuple[str, ...]]]) -> frozenset[str]:
    """Normalised names of the distributions that installing `roots` (name, extras) brings along."""
    found: set[str] = set(_ALWAYS)
    seen: set[tuple[str, tuple[str, ...]]] = set()
    queue = list(roots)
    while queue:
        name, extras = queue.pop()
        key = (normalise(name), tuple(sorted(extras)))
        if key in seen:
            continue
        seen.add(key)
        found.add(key[0])
        try:
            requirements = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        queue += [required for line in requirements if (required := wanted(line, extras)) is not None]
    return frozenset(found)


def wanted(requirement: str, extras: tuple[str, ...]) -> tuple[str, tuple[str, ...]] | None:
    """Name and extras of a Requires-Dist line, or None where only an extra that was not asked for wants it.

    Environment markers other than `extra` are taken as true: a distribution that is not installed blocks nothing.
    """
    specifier, _, marker = requirement.partition(";")
    if (extra := _EXTRA.search(marker)) and extra.group(1) not in extras:
        return None
    name = _NAME.match(specifier.strip())
    if name is None:
        return None
    own = _OWN_EXTRAS.search(specifier)
    return name.group(0), tuple(part.strip() for part in own.group(1).split(",")) if own else ()


def normalise(name: str) -> str:
    """A distribution's name as PEP 503 writes it."""
    return re.sub(r"[-_.]+", "-", name).lower()
