"""One range for all pixels with more than 8 bits: what is white must not depend on the picture."""

from __future__ import annotations

from collections.abc import Iterable

_BITS = (255.0, 1023.0, 4095.0, 16383.0, 65535.0)  # 8, 10, 12, 14 and 16 bits
_OVERSHOOT = 2.0  # floats meant as 0 to 1 exceed 1 a little after resampling or sharpening


def white_of(maxima: Iterable[tuple[str, float]]) -> dict[str, float]:
    """The value that is white, by kind, from the kind ("I" integers, "F" floats) and highest value of each picture."""
    highest: dict[str, float] = {}
    for kind, value in maxima:
        highest[kind] = max(highest.get(kind, 0.0), value)
    white = {}
    if "I" in highest:
        white["I"] = next((bits for bits in _BITS if highest["I"] <= bits), highest["I"])
    if "F" in highest:
        top = highest["F"]
        white["F"] = 1.0 if top <= _OVERSHOOT else next((bits for bits in (255.0, 65535.0) if top <= bits), top)
    return white


def notice(white: dict[str, float], count: int) -> str:
    """What was decided, for a person."""
    ranges = " and ".join(
        f"0 to {top:g} of {'whole numbers' if kind == 'I' else 'floats'}" for kind, top in white.items()
    )
    unused = white.get("I", 65535.0)
    bits = f"; the upper bits of 16 are not used: {int(unused).bit_length()} are" if unused < 65535 else ""
    return f"{count:,} pictures have more than 8 bits a pixel: for all of them black to white is {ranges}{bits}"
