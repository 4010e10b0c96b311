"""Text to typed columns, exactly: what is not written as its type asks becomes null, nothing is guessed.

Blanks around a value are ignored. Numbers are finite decimals with a point, integers fit into 64 bits (1.0 is one),
booleans are true/false (also True, TRUE, 1 and so on), moments ISO 8601 (UTC where no offset is written).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from components.content import MOMENT

_NUMBER = r"\A[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?\z"
_INTEGER = r"\A[+-]?[0-9]+(?:\.0*)?\z"
_MOMENT = (
    r"\A(?P<year>[0-9]{4})-(?P<month>[0-9]{2})-(?P<day>[0-9]{2})"
    r"(?:[T ](?P<hour>[0-9]{2}):(?P<minute>[0-9]{2})(?::(?P<second>[0-9]{2})(?:\.(?P<fraction>[0-9]{1,9}))?)?"
    r"(?:Z|(?P<sign>[+-])(?P<offset_hour>[0-9]{2}):?(?P<offset_minute>[0-9]{2}))?)?\z"
)
_TRUE = ("true", "True", "TRUE", "1")
_FALSE = ("false", "False", "FALSE", "0")

# A whole number of up to 18 digits always fits into 64 bits.
_SAFE_DIGITS = 18


def numbers(text: pa.Array) -> pa.Array:
    """float64 where the text is a finite decimal number, null elsewhere (also for 1e400, nan and inf)."""
    text = pc.utf8_trim_whitespace(text)
    written = _where(pc.match_substring_regex(text, _NUMBER), text)
    values = written.cast(pa.float64())
    return _where(pc.is_finite(values), values)


def integers(text: pa.Array) -> pa.Array:
    """int64 where the text is a whole number of 64 bits, null elsewhere."""
    text = pc.utf8_trim_whitespace(text)
    digits = _where(pc.match_substring_regex(text, _INTEGER), text)
    digits = pc.replace_substring_regex(digits, r"\A\+|\.0*\z", "")
    digits = pc.replace_substring_regex(digits, r"\A(-?)0+([0-9])", r"\1\2")
    short = pc.less_equal(pc.utf8_length(pc.utf8_ltrim(digits, characters="-")), _SAFE_DIGITS)
    values = _where(short, digits).cast(pa.int64())
    if pc.any(pc.invert(short)).as_py():
        values = pc.coalesce(values, pa.array([_bounded(item) for item in digits.to_pylist()], type=pa.int64()))
    return values


def booleans(text: pa.Array) -> pa.Array:
    """bool where the text is one of the standard's words for true and false, null elsewhere."""
    text = pc.utf8_trim_whitespace(text)
    true = pc.is_in(text, value_set=pa.array(_TRUE, type=text.type))
    known = pc.or_(true, pc.is_in(text, value_set=pa.array(_FALSE, type=text.type)))
    return _where(known, true)


def moments(text: pa.Array) -> pa.Array:
    """A UTC timestamp in microseconds where the text is an ISO 8601 date or time, null elsewhere."""
    parts = pc.extract_regex(pc.utf8_trim_whitespace(text), _MOMENT)
    matched = parts.is_valid().to_numpy(zero_copy_only=False)

    def part(name: str, otherwise: int = 0) -> npt.NDArray[np.int64]:
        digits = pc.struct_field(parts, name)
        present = pc.fill_null(pc.greater(pc.binary_length(digits), 0), False)
        return _integers_or(pc.if_else(present, digits, None), otherwise)

    year, month, day = part("year", 1970), part("month", 1), part("day", 1)
    hour, minute, second = part("hour"), part("minute"), part("second")
    offset_hour, offset_minute = part("offset_hour"), part("offset_minute")
    fraction = pc.utf8_slice_codeunits(pc.utf8_rpad(pc.struct_field(parts, "fraction"), 6, padding="0"), 0, 6)
    microsecond = _integers_or(fraction, 0)
    behind = pc.fill_null(pc.equal(pc.struct_field(parts, "sign"), "-"), False).to_numpy(zero_copy_only=False)

    months = ((year - 1970) * 12 + month - 1).astype("datetime64[M]")
    days = months.astype("datetime64[D]") + (day - 1).astype("timedelta64[D]")
    valid = matched & (month >= 1) & (month <= 12) & (day >= 1) & (days.astype("datetime64[M]") == months)
    valid &= (hour < 24) & (minute < 60) & (second < 60) & (offset_hour < 24) & (offset_minute < 60)
    offset = np.where(behind, -1, 1) * (offset_hour * 60 + offset_minute)
    seconds = (hour * 60 + minute - offset) * 60 + second
    value = days.astype("datetime64[us]").astype(np.int64) + seconds * 1_000_000 + microsecond
    return pa.array(value, type=pa.int64(), mask=~valid).cast(MOMENT)


def _where(condition: pa.Array, values: pa.Array) -> pa.Array:
    return pc.if_else(condition, values, pa.scalar(None, type=values.type))


def _integers_or(digits: pa.Array, otherwise: int) -> npt.NDArray[np.int64]:
    filled: npt.NDArray[np.int64] = pc.fill_null(digits.cast(pa.int64()), otherwise).to_numpy(zero_copy_only=False)
    return filled


def _bounded(digits: str | None) -> int | None:
    # Over 20 characters it cannot fit, and int() refuses texts of thousands of digits.
    value = int(digits) if digits is not None and len(digits) <= 20 else None
    return value if value is not None and -(2**63) <= value < 2**63 else None
