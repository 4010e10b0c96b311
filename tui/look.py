"""How the monitor looks: its themes, the names that cells use for colours, and the signs that go with every state.

A colour is never the only signal: each state has a sign and a word, each revision a pattern of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich.style import Style
from rich.text import Text
from textual.color import Color, ColorParseError
from textual.theme import BUILTIN_THEMES, Theme

from kanary.text import one_line

if TYPE_CHECKING:
    from textual.app import App

Spans = Sequence[tuple[str, str]]  # texts with the names of their styles, side by side

DARK = Theme(
    name="kanary",
    primary="#ffc533",
    secondary="#6cb6ff",
    accent="#ffc533",
    success="#7ccf8a",
    warning="#ffa657",
    error="#ff7b72",
    foreground="#d4dbe3",
    background="#0e1318",
    surface="#141b22",
    panel="#1d262f",
    dark=True,
    variables={"border": "#33404d"},
)
LIGHT = Theme(
    name="kanary-light",
    primary="#8a5a00",
    secondary="#0b5cad",
    accent="#8a5a00",
    success="#1a7037",
    warning="#9a4f00",
    error="#b3261e",
    foreground="#20262c",
    background="#fdfcf9",
    surface="#f6f3ec",
    panel="#ebe6da",
    dark=False,
    variables={"border": "#c9c1b0"},
)
THEMES = (DARK.name, LIGHT.name, *BUILTIN_THEMES)

# What cells call colours -> the theme's variable.
_VARIABLES = {
    "good": "success",
    "bad": "error",
    "warn": "warning",
    "info": "secondary",
    "stable": "secondary",
    "canary": "primary",
    "accent": "primary",
    "plain": "foreground",
}

_STATES = {
    "PENDING": ("…", "dim"),
    "RUNNING": ("▶", "info"),
    "SUCCEEDED": ("✓", "good"),
    "SKIPPED": ("↷", "dim"),
    "FAILED": ("✗", "bold bad"),
    "CANCELING": ("◌", "warn"),
    "CANCELED": ("■", "warn"),
    "PAUSED": ("‖", "warn"),
    "ready": ("✓", "good"),
    "canary": ("◐", "canary"),
    "starting": ("…", "info"),
    "failing": ("✗", "bold bad"),
    "unreadable": ("?", "bold warn"),
}


def state_sign(state: str) -> tuple[str, str]:
    """The sign of a state, and its style; a state that nobody knows gets a question mark."""
    return _STATES.get(state, ("?", "bold"))


def styles(app: App[Any]) -> Mapping[str, Style]:
    """The style of every name that cells use, in the application's theme. Names may be put together: `bold bad`."""
    theme = app.current_theme
    if theme.name not in _STYLES:
        _STYLES[theme.name] = _made(app.theme_variables, theme)
    return _STYLES[theme.name]


_STYLES: dict[str, Mapping[str, Style]] = {}


def _made(variables: Mapping[str, str], theme: Theme) -> dict[str, Style]:
    found = {"": Style(), "bold": Style(bold=True), "italic": Style(italic=True), "reverse": Style(reverse=True)}
    for name, variable in _VARIABLES.items():
        found[name] = Style(color=_color(variables.get(variable) or "#888888"))
    # Half-bright text is unreadable in some terminals' own colours, invisible in others.
    faint = Style(dim=True) if theme.ansi else Style(color=_color(_faint(variables)))
    return found | {"dim": faint}


def styled(lines: Sequence[Spans], known: Mapping[str, Style], *, wrap: bool = False) -> Text:
    """Lines of (text, style's name) as one Text, made harmless; cut at the right edge unless they are to wrap."""
    text = Text(no_wrap=not wrap, overflow="fold" if wrap else "ellipsis")
    for index, line in enumerate(lines):
        text.append("\n" if index else "")
        for part, style in line:
            text.append(harmless(part), style_of(style, known))
    return text


def harmless(text: str) -> str:
    """`text` in one line, without anything that a terminal would act on; the blanks at its ends stay."""
    if text.isprintable():
        return text
    body = one_line(text)
    return " " * (len(text) - len(text.lstrip(" "))) + body


def style_of(name: str, known: Mapping[str, Style]) -> Style:
    """The style of a name, or of several with blanks between them."""
    if name in known:
        return known[name]
    combined = Style()
    for part in name.split():
        combined += known.get(part, Style())
    return combined


def default_theme(environ: Mapping[str, str]) -> str:
    """The theme for this terminal: its own 16 colours where it has no more; light where it says that it is light."""
    light = _is_light(environ.get("COLORFGBG", ""))
    term = environ.get("TERM", "")
    served = environ.get("TEXTUAL_COLOR_SYSTEM", "") in ("truecolor", "256")  # to a browser
    rich = served or environ.get("COLORTERM", "") != "" or any(word in term for word in ("256", "direct", "kitty"))
    if not rich:
        return "ansi-light" if light else "ansi-dark"
    return LIGHT.name if light else DARK.name


def clock_time(moment: datetime | None, now: datetime) -> str:
    """`07:31:08` for today, `11-21 07:31` for another day, in local time."""
    if moment is None:
        return ""
    local = moment.astimezone()
    return f"{local:%H:%M:%S}" if local.date() == now.astimezone().date() else f"{local:%m-%d %H:%M}"


def _is_light(told: str) -> bool:
    # rxvt and others: "0;15" is black on white.
    background = told.rpartition(";")[2]
    return background.isdecimal() and int(background) in (7, 15)


def _faint(variables: Mapping[str, str]) -> str:
    try:
        front, back = Color.parse(variables["foreground"]), Color.parse(variables["background"])
    except (KeyError, ColorParseError):
        return "#888888"
    return front.blend(back, 0.42).hex


def _color(value: str) -> str:
    try:
        return Color.parse(value).rich_color.name
    except ColorParseError:
        return "default"
