"""Reads a lightweight Python component out of the container that the KFP compiler wrote for it."""

from __future__ import annotations

import itertools
import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sandbox.errors import InvalidSpec

TARGETS = ("pipeline", "train", "serve", "drift")
_EXTRA_OF_TARGET = {"pipeline": "pipelines", "train": "train", "serve": "serve", "drift": "drift"}
PLAIN = ("=kfp",)
"""What a plain Python image holds: kfp, which every step installs."""
_PLAIN_PYTHON = re.compile(r"(docker\.io/)?(library/)?python(:[\w.-]+)?")
_EXECUTOR = "kfp.dsl.executor_main"
_FILE = "ephemeral_component.py"
_KFP = re.compile(r"(kfp|typing-extensions)(?![\w-])")
_VALUED = frozenset({"--index-url", "-i", "--extra-index-url", "--trusted-host", "--find-links", "-f"})


@dataclass(frozen=True)
class Lightweight:
    """A component that is one Python function: `source` defines it, `function` names it.

    `packages` are to be installed before it runs, with `pip_options`; `extras` are what its image holds of ours.
    """

    function: str
    source: str
    image: str
    env: tuple[tuple[str, str], ...]
    accelerators: int
    extras: tuple[str, ...] | None
    packages: tuple[str, ...] = ()
    pip_options: tuple[str, ...] = ()


def is_lightweight(container: Mapping[str, Any], where: str) -> bool:
    """Whether `container` (PipelineContainerSpec) holds its Python function as text; any other one needs its image."""
    command, args = _words(container, "command", where), _words(container, "args", where)
    return (
        any(_EXECUTOR in part for part in command)
        and any(_FILE in part for part in command[:-1])
        and "--function_to_execute" in args[:-1]
    )


def read(container: Mapping[str, Any], where: str) -> Lightweight:
    """The lightweight component in a container for which `is_lightweight` holds."""
    command, args = _words(container, "command", where), _words(container, "args", where)
    image = container.get("image", "")
    accelerator = container.get("resources", {}).get("accelerator", {})
    packages, options = _packages(command)
    return Lightweight(
        function=args[args.index("--function_to_execute") + 1],
        source=command[-1],
        image=image,
        env=tuple((entry["name"], entry.get("value", "")) for entry in container.get("env", [])),
        accelerators=_count(accelerator.get("resourceCount") or accelerator.get("count") or 0, where),
        extras=extras_of(image, os.environ),
        packages=packages,
        pip_options=options,
    )


def extras_of(image: str, environment: Mapping[str, str]) -> tuple[str, ...] | None:
    """The extras of ours that `image` holds; None where the sandbox does not know the image.

    Ours are the images that the environment pins (KANARY_IMAGE_TRAIN=...) and those named after a target of the
    Containerfile (".../train:0.1.0"); a plain python image holds kfp alone.
    """
    for target in TARGETS:
        if image == environment.get(f"KANARY_IMAGE_{target.upper()}"):
            return (_EXTRA_OF_TARGET[target],)
    if _PLAIN_PYTHON.fullmatch(image):
        return PLAIN
    name = image.rpartition("/")[2].partition("@")[0].partition(":")[0]
    return (_EXTRA_OF_TARGET[name],) if name in TARGETS and "kanary" in image else None


def _words(container: Mapping[str, Any], key: str, where: str) -> list[str]:
    words = container.get(key, [])
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise InvalidSpec("must be a list of strings", f"{where}.container.{key}")
    return words


def _count(value: Any, where: str) -> int:
    """A number of accelerators; a placeholder for a parameter counts as one, which is what the note is about."""
    if isinstance(value, str) and "{{" in value:
        return 1
    try:
        return int(value)
    except (TypeError, ValueError) as error:
        raise InvalidSpec(f"{value!r} is no number of accelerators", f"{where}.container.resources") from error


def _packages(command: list[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What the command would install with pip, and pip's options; kfp itself is left out, the sandbox has it."""
    found: list[str] = []
    options: list[str] = []
    for script in command[:-1]:
        for line in _pip_lines(script):
            packages, given = _sorted_out(line)
            if wanted := [name for name in packages if not _KFP.match(name)]:
                found += wanted
                options += given
    return tuple(dict.fromkeys(found)), tuple(options)


@lru_cache(maxsize=256)
def _pip_lines(script: str) -> list[list[str]]:
    """The words after each `pip install` of a shell script; the same few scripts come again and again."""
    lexer = shlex.shlex(script, posix=True, punctuation_chars=True)
    lexer.whitespace_split, lexer.commenters = True, ""
    try:
        words = list(lexer)
    except ValueError:
        return []
    lines: list[list[str]] = []
    for at in range(len(words) - 1):
        if words[at] == "pip" and words[at + 1] == "install":
            rest = itertools.takewhile(lambda word: not set(word) <= set("&|;()"), words[at + 2 :])
            lines.append(list(rest))
    return lines


def _sorted_out(words: list[str]) -> tuple[list[str], list[str]]:
    """Packages, and those options that say where they come from."""
    packages: list[str] = []
    options: list[str] = []
    rest = iter(words)
    for word in rest:
        if word in _VALUED:
            options += [word, next(rest, "")]
        elif word.partition("=")[0] in _VALUED or word in ("--pre", "--no-deps", "--no-index"):
            options.append(word)
        elif not word.startswith(("-", "$")):
            packages.append(word)
    return packages, options
