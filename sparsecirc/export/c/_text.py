"""Numbers, identifiers and comments as C text, and the snippets of ``runtime/``."""

from __future__ import annotations

import re
from importlib import resources
from string import Template
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsecirc.errors import UsageError

_RESERVED = (
    "alignas alignof and asm auto bool break case catch char class const constexpr continue default delete do double "
    "else enum explicit export extern false float for friend goto if inline int long mutable namespace new noexcept "
    "not nullptr operator or private protected public register requires restrict return short signed sizeof static "
    "struct switch template this throw true try typedef typeid typename typeof union unsigned using virtual void "
    "volatile while xor"
)
_KEYWORDS = frozenset(_RESERVED.split())
_WINDOWS_DEVICES = re.compile(r"con|prn|aux|nul|com\d|lpt\d", re.IGNORECASE)
_ITEMS_PER_LINE = {
    "float": 6,
    "uint8_t": 24,
    "int8_t": 24,
    "uint16_t": 16,
    "int16_t": 16,
    "uint32_t": 12,
    "int32_t": 12,
}


def check_name(name: str) -> str:
    """``name`` where it can name C functions, macros and files.

    Raises:
        UsageError: it is no C identifier, a keyword of C or C++, or a device name of Windows.
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) or name in _KEYWORDS or _WINDOWS_DEVICES.fullmatch(name):
        raise UsageError(
            f"'{name}' cannot name C functions and files: expected a letter, then letters, digits or '_', and neither "
            "a C keyword nor a Windows device name"
        )
    return name


def identifier(text: str) -> str:
    """A C identifier close to ``text``."""
    word = re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_") or "value"
    return f"v{word}" if word[0].isdigit() else f"{word}_" if word in _KEYWORDS else word


def comment(text: str) -> str:
    """``text`` such that it cannot end a C comment or start a new line."""
    plain = "".join(c if c.isascii() and c.isprintable() else "?" for c in text)
    return plain.replace("*/", "* /").replace("/*", "/ *").rstrip("\\")


def float_literal(value: float) -> str:
    """An exact C99 hexadecimal literal of type float."""
    if value == 0:
        return "-0.0f" if np.signbit(value) else "0.0f"
    mantissa, exponent = float(value).hex().split("p")
    head, _, fraction = mantissa.partition(".")
    fraction = fraction.rstrip("0")
    return f"{head}{'.' + fraction if fraction else ''}p{exponent}f"


def to_float32(array: NDArray[Any], what: str) -> NDArray[np.float32]:
    """``array`` in single precision.

    Raises:
        UsageError: an entry is too large for it.
    """
    with np.errstate(over="ignore"):
        single = np.ascontiguousarray(array, dtype=np.float32)
    if not np.all(np.isfinite(single)):
        raise UsageError(f"{what} holds {float(np.abs(array).max()):g}, beyond single precision: rescale it")
    return single


def array_text(declaration: str, ctype: str, data: NDArray[Any]) -> str:
    """``static const`` definition of a one-dimensional array."""
    flat = data.ravel()
    items = [float_literal(v) for v in flat.tolist()] if ctype == "float" else [str(v) for v in flat.tolist()]
    per_line = _ITEMS_PER_LINE[ctype]
    lines = [", ".join(items[k : k + per_line]) for k in range(0, len(items), per_line)]
    return f"static const {ctype} {declaration}[{flat.size}] = {{\n    " + ",\n    ".join(lines) + "\n};\n"


def snippet(file: str, **values: object) -> str:
    """A file of ``runtime/`` with its ``${...}`` filled in."""
    text = (resources.files("sparsecirc.export.c") / "runtime" / f"{file}.in").read_text(encoding="utf-8")
    return Template(text).substitute({k: str(v) for k, v in values.items()})
