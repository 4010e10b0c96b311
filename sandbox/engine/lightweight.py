"""Reads a lightweight Python component out of the container that the KFP compiler wrote for it."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sandbox.errors import InvalidSpec, Unsupported

TARGETS = ("pipeline", "train", "serve", "drift")
_EXTRA_OF_TARGET = {"pipeline": "pipelines", "train": "train", "serve": "serve", "drift": "drift"}
_PLAIN_PYTHON = re.compile(r"(docker\.io/)?(library/)?python(:[\w.-]+)?")
_EXECUTOR = "kfp.dsl.executor_main"


@dataclass(frozen=True)
class Lightweight:
    """A component that is one Python function: `source` defines it, `function` names it."""

    function: str
    source: str
    image: str
    env: tuple[tuple[str, str], ...]
    accelerators: int
    extras: tuple[str, ...] | None


def read(container: Mapping[str, Any], where: str) -> Lightweight:
    """The lightweight component in `container` (PipelineContainerSpec); Unsupported for any other container."""
    command, args = _words(container, "command", where), _words(container, "args", where)
    if not any(_EXECUTOR in part for part in command) or "--function_to_execute" not in args[:-1]:
        raise Unsupported(
            "a container component: the sandbox runs lightweight Python components only",
            where,
            "write it with @dsl.component, or run this pipeline on Kubeflow",
        )
    packages = _packages(command)
    if packages:
        raise Unsupported(
            f"packages_to_install ({', '.join(packages)}): the sandbox does not install packages for a step yet",
            where,
            "put the packages into the step's image",
        )
    image = container.get("image", "")
    accelerator = container.get("resources", {}).get("accelerator", {})
    return Lightweight(
        function=args[args.index("--function_to_execute") + 1],
        source=command[-1],
        image=image,
        env=tuple((entry["name"], entry.get("value", "")) for entry in container.get("env", [])),
        accelerators=_count(accelerator.get("resourceCount") or accelerator.get("count") or 0, where),
        extras=extras_of(image, os.environ),
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
        return ("=kfp",)
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


def _packages(command: list[str]) -> list[str]:
    """What the command would install with pip, kfp itself left out (the sandbox has it)."""
    found: list[str] = []
    for script in command[:-1]:
        for line in re.findall(r"pip install([^&|;\n]*(?:;[^&|\n]*)?)", script):
            try:
                words = shlex.split(line.replace("\\\n", " "))
            except ValueError:
                words = line.split()
            found += [word for word in words if not word.startswith("-") and not word.startswith("$")]
    return [name for name in found if not re.match(r"(kfp|typing-extensions)\b", name)]
