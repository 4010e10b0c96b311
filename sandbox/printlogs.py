"""The command `logs`: prints and follows the logs of parts and of model servers. Changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TextIO

from sandbox.errors import NotFound
from sandbox.home import Home
from sandbox.rotation import lines

_SERVERS = "servers"


def logs(home: Home, part: str | None, follow: bool, out: TextIO) -> None:
    """Prints one log, or several with each line's origin; with `follow` it goes on until interrupted.

    `part` is a part, a model server as `<namespace>/<revision>` or `<revision>`, or an InferenceService, with or
    without its namespace, for all its model servers; None for all parts. Raises NotFound, naming the logs there are.
    """
    known = known_logs(home)
    chosen = {name: path for name, path in known.items() if "/" not in name} if part is None else matching(known, part)
    if not chosen:
        raise NotFound(f"There is no log of {part!r} in {home.logs}.", f"There are: {', '.join(known) or 'none'}.")
    names = {path: name for name, path in chosen.items()}
    width = max(12, *map(len, names.values()))
    alone = part is not None and len(names) == 1
    for path, line in lines(list(names), lambda: follow):
        print(line if alone else f"{names[path]:<{width}} {line}", file=out, flush=follow)


def known_logs(home: Home) -> dict[str, Path]:
    """Log files by the name of their part, or `<namespace>/<revision>` of their model server."""
    found = {path.stem: path for path in sorted(home.logs.glob("*.log"))}
    for path in sorted((home.logs / _SERVERS).glob("*.log")):
        namespace, _, revision = path.stem.partition(".")
        found[f"{namespace}/{revision}"] = path
    return found


def matching(known: dict[str, Path], name: str) -> dict[str, Path]:
    """The logs that `name` stands for: that very one, else a revision's in any namespace, else a service's."""
    if name in known:
        return {name: known[name]}
    namespace, _, called = name.rpartition("/")
    servers = {
        key: path for key, path in known.items() if "/" in key and key.startswith(f"{namespace}/" if namespace else "")
    }
    exact = {key: path for key, path in servers.items() if key.partition("/")[2] == called}
    starts = tuple(f"{called}-{component}" for component in ("predictor", "transformer", "explainer"))
    return exact or {key: path for key, path in servers.items() if key.partition("/")[2].startswith(starts)}
