"""Where our API answers differently from the recorded one, by the vector's name, and why that is so.

A test fails for a vector that differs and is not named here, and for one that is named here and does not differ.
"""

from __future__ import annotations

API: dict[str, str] = {}
KUBECTL: dict[str, str] = {}
ADMISSION: dict[str, str] = {}
