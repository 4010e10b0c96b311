"""Draws the README's pictures: a recording, replayed without a terminal, as SVG. The same bytes each time.

    python -P docs/screenshots.py [RECORDING [FOLDER]]

`incident.jsonl.gz` was made by `kanary record --logs` on a sandbox. Nothing in a picture is fetched from anywhere.
"""

from __future__ import annotations

import asyncio
import io
import os
import sys
import time
from pathlib import Path

from rich.console import Console
from textual.pilot import Pilot

from kanary import config
from kanary.errors import KanaryError
from kanary.recording import read
from kanary.replay import ReplayHub
from tui.replay import Replay

HERE = Path(__file__).resolve().parent
SIZE = (120, 32)
AT = 140  # seconds after the start of the recording
_STILL = 0.5  # seconds without a change: whatever was asked for has come
_PATIENCE = 30.0
# The keys that lead to each picture, one after the other.
PICTURES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("runs", ("1",)),
    ("services", ("2",)),
    ("service", ("enter",)),
    ("drift", ("escape", "3")),
    ("events", ("4",)),
)
# Rich's own names a font at a server of somebody else's.
SVG = """\
<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{
  font-family: ui-monospace, "Cascadia Mono", "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: {char_height}px; line-height: {line_height}px; font-variant-ligatures: none;
}}
.{unique_id}-title {{ font-family: sans-serif; font-size: 18px; font-weight: bold; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


async def draw(recording: Path, folder: Path) -> list[Path]:
    """Writes each picture as it looks at that moment of the recording, and gives their paths."""
    hub = ReplayHub(read(recording), config.load({}, {"HOME": str(folder)}, folder), paused=True)
    hub.seek(hub.recording.start + AT)
    app, drawn = Replay(hub, "kanary"), []
    async with app.run_test(size=SIZE) as pilot:
        for name, keys in PICTURES:
            for key in keys:
                await pilot.press(key)
                await still(pilot)
            path = folder / f"{name}.svg"
            path.write_text(await still(pilot), encoding="utf-8")
            drawn.append(path)
    return drawn


async def still(pilot: Pilot[None]) -> str:
    """The picture once it does not change any more."""
    before, since, began = "", time.monotonic(), time.monotonic()
    while time.monotonic() - since < _STILL:
        if time.monotonic() - began > _PATIENCE:
            raise KanaryError("The picture goes on changing.")
        await pilot.pause(0.05)
        now = picture(pilot)
        if now != before:
            before, since = now, time.monotonic()
    return before


def picture(pilot: Pilot[None]) -> str:
    """What is on the screen, as SVG."""
    app = pilot.app
    width, height = app.size
    console = Console(
        width=width, height=height, file=io.StringIO(), force_terminal=True, color_system="truecolor", record=True,
        legacy_windows=False, safe_box=False,
    )  # fmt: skip
    console.print(app.screen._compositor.render_update(full=True, screen_stack=app._background_screens, simplify=True))
    text = console.export_svg(title="kanary", code_format=SVG, unique_id="k")
    return "\n".join(line.rstrip() for line in text.splitlines() if line.strip()) + "\n"


def main() -> int:
    os.environ["TZ"] = "UTC"  # times of day are the same wherever it is drawn
    time.tzset()
    given = [Path(argument) for argument in sys.argv[1:]]
    recording, folder = [*given, *(HERE / "incident.jsonl.gz", HERE)[len(given) :]][:2]
    try:
        for path in asyncio.run(draw(recording, folder)):
            print(f"{path}  {path.stat().st_size // 1000} kB")
    except KanaryError as error:
        print(f"screenshots: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
