"""What Go's encoding/json says of malformed JSON: clients show these sentences, and tests compare them."""

from __future__ import annotations

END = "unexpected end of JSON input"
WHITESPACE = " \t\r\n"


class Malformed(Exception):
    """Carries Go's sentence."""


def syntax_error(text: str) -> str:
    """Go's message for the first fault in `text`; empty if there is none."""
    try:
        at = _value(text, _skip(text, 0))
        at = _skip(text, at)
        if at < len(text):
            return _unexpected(text, at, "after top-level value")
    except Malformed as found:
        return str(found)
    return ""


def quoted(character: str) -> str:
    """A character as Go quotes it in these messages."""
    if character == "'":
        return r"'\''"
    if character == '"':
        return "'\"'"
    named = {"\n": r"\n", "\t": r"\t", "\r": r"\r", "\\": r"\\"}.get(character)
    if named:
        return f"'{named}'"
    # A byte that is not ASCII arrives as a lone surrogate or as a Latin-1 character.
    code = ord(character)
    if code >= 0xDC80 or code < 0x20 or 0x7F <= code <= 0xFF:
        return f"'\\x{code & 0xFF:02x}'"
    return f"'{character}'"


def _unexpected(text: str, at: int, where: str) -> str:
    return END if at >= len(text) else f"invalid character {quoted(text[at])} {where}"


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in WHITESPACE:
        at += 1
    return at


def _expect(text: str, at: int, allowed: str, where: str) -> int:
    if at >= len(text) or text[at] not in allowed:
        raise Malformed(_unexpected(text, at, where))
    return at


def _value(text: str, at: int) -> int:
    at = _expect(text, at, '{["-0123456789tfn', "looking for beginning of value")
    match text[at]:
        case "{":
            return _object(text, at + 1)
        case "[":
            return _array(text, at + 1)
        case '"':
            return _string(text, at + 1)
        case "t":
            return _literal(text, at, "true")
        case "f":
            return _literal(text, at, "false")
        case "n":
            return _literal(text, at, "null")
    return _number(text, at)


def _object(text: str, at: int) -> int:
    at = _skip(text, at)
    if at < len(text) and text[at] == "}":
        return at + 1
    while True:
        at = _expect(text, _skip(text, at), '"', "looking for beginning of object key string")
        at = _expect(text, _skip(text, _string(text, at + 1)), ":", "after object key")
        at = _value(text, _skip(text, at + 1))
        at = _expect(text, _skip(text, at), ",}", "after object key:value pair")
        if text[at] == "}":
            return at + 1
        at += 1


def _array(text: str, at: int) -> int:
    at = _skip(text, at)
    if at < len(text) and text[at] == "]":
        return at + 1
    while True:
        at = _value(text, _skip(text, at))
        at = _expect(text, _skip(text, at), ",]", "after array element")
        if text[at] == "]":
            return at + 1
        at += 1


def _string(text: str, at: int) -> int:
    while at < len(text):
        character = text[at]
        if character == '"':
            return at + 1
        if character < " ":
            raise Malformed(_unexpected(text, at, "in string literal"))
        if character == "\\":
            at = _expect(text, at + 1, '"\\/bfnrtu', "in string escape code")
            if text[at] == "u":
                for _ in range(4):
                    at = _expect(text, at + 1, "0123456789abcdefABCDEF", "in \\u hexadecimal character escape")
        at += 1
    raise Malformed(END)


def _literal(text: str, at: int, word: str) -> int:
    for offset, wanted in enumerate(word[1:], 1):
        _expect(text, at + offset, wanted, f"in literal {word} (expecting {quoted(wanted)})")
    return at + len(word)


def _number(text: str, at: int) -> int:
    digits = "0123456789"
    if text[at] == "-":
        at = _expect(text, at + 1, digits, "in numeric literal")
    at = at + 1 if text[at] == "0" else _run(text, at, digits)
    if at < len(text) and text[at] == ".":
        at = _run(text, _expect(text, at + 1, digits, "after decimal point in numeric literal"), digits)
    if at < len(text) and text[at] in "eE":
        at += 1
        if at < len(text) and text[at] in "+-":
            at += 1
        at = _run(text, _expect(text, at, digits, "in exponent of numeric literal"), digits)
    return at


def _run(text: str, at: int, allowed: str) -> int:
    while at < len(text) and text[at] in allowed:
        at += 1
    return at
