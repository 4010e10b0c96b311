"""Makes one environment play many images: a worker may import only what its step's image would have.

An image is known by the extras of the `kanary` distribution that are installed in it; everything outside the closure
of those extras is refused with an ImportError that says so. Standard library and the user's own modules are free.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
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


class ImageImportError(ModuleNotFoundError):
    """The module is installed here, but not in the image this step names."""


class _Refuse(MetaPathFinder):
    """First on `sys.meta_path`: refuses the blocked top-level modules, passes on everything else."""

    def __init__(self, blocked: frozenset[str], image: str) -> None:
        self.blocked = blocked
        self.image = image

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Refuse a blocked module; None (go on looking) for any other."""
        if fullname.partition(".")[0] not in self.blocked:
            return None
        message = f"No module named {fullname!r} in the image {self.image or 'of this step'}"
        raise ImageImportError(f"{message} (it is installed on this machine, but not in that image)", name=fullname)


def install(blocked: frozenset[str], image: str) -> None:
    """Refuse `blocked` from now on in this process, those that are loaded already included."""
    for name in [name for name in sys.modules if name.partition(".")[0] in blocked]:
        del sys.modules[name]
    sys.meta_path.insert(0, _Refuse(blocked, image))


@cache
def blocked_modules(extras: tuple[str, ...]) -> frozenset[str]:
    """Top-level modules that are installed here but not in an image with these extras of ours.

    `("=kfp",)` stands for an image with nothing but that distribution (a plain `python` image with kfp installed).
    """
    if extras and extras[0].startswith("="):
        allowed = closure([(extra[1:], ()) for extra in extras])
    else:
        allowed = closure([(_OURS, extras)])
    return frozenset(
        module
        for module, owners in metadata.packages_distributions().items()
        if not any(normalise(owner) in allowed for owner in owners)
    )


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
