"""A number in the prose, checked against the value that code computed."""
import re

DIGITS = re.compile(
    r"(?P<sign>[-+\u2212]?)(?P<number>(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+)(?:[eE](?P<power>[-+\u2212]?\d+))?"
)
WORDS = {w: n for n, w in enumerate(
    ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"])}
WORD = re.compile(r"\b(" + "|".join(WORDS) + r")\b", re.I)
UNIT = re.compile(r"[\s\u00a0\u202f-]*([%\u00b5\u03bc]?[A-Za-z]*)")

UNITS = {"%": 1e-2, "percent": 1e-2, "k": 1e3, "K": 1e3, "M": 1e6, "B": 1e9,
         "thousand": 1e3, "million": 1e6, "billion": 1e9, "trillion": 1e12,
         "ms": 1e-3, "millisecond": 1e-3, "milliseconds": 1e-3, "ns": 1e-9, "nanoseconds": 1e-9,
         "us": 1e-6, "\u00b5s": 1e-6, "\u03bcs": 1e-6, "microsecond": 1e-6, "microseconds": 1e-6}
for what in ("B", "byte", "bytes", "FLOP", "FLOPs", "FLOPS", "b", "bit", "bits"):
    for prefix, size in {"k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15,
                         "kilo": 1e3, "mega": 1e6, "giga": 1e9, "tera": 1e12,
                         "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}.items():
        UNITS[prefix + what] = size


def parse(text):
    """The first number of `text` as it is written: (number, half of its last place, unit's size).

    Digits are looked for first ("4,096", "0.5", "1e-4"), then a small number in words ("four").
    """
    if found := DIGITS.search(text):
        sign = -1 if found["sign"] in ("-", "\u2212") else 1
        power = 10.0 ** int((found["power"] or "0").replace("\u2212", "-"))
        number = sign * float(found["number"].replace(",", "")) * power
        half = 0.5 * 10.0 ** -len(found["number"].partition(".")[2]) * power
    elif found := WORD.search(text):
        number, half = float(WORDS[found[1].lower()]), 0.5
    else:
        raise ValueError(f"no number in {text!r}")
    return number, half, UNITS.get(UNIT.match(text, found.end())[1], 1.0)


def claim(text, value, *, rel=None, scale=None):
    """Assert that the number in `text`, copied from the prose, is `value` to the written precision.

    text: words of the chapter as they stand there, such as "4,096 tokens" or "13.1 MB".
    value: what the code computed, in the base unit: bytes for "MB", seconds for "ms",
        a fraction for "%", the plain count for "million".
    rel: accept this relative difference instead, for "about 200 tokens".
    scale: size of the unit in the text; `scale=1` says that `value` is already in that unit.
    """
    number, half, unit = parse(text)
    unit = unit if scale is None else scale
    said, found = number * unit, float(value)
    margin = half * unit if rel is None else rel * abs(found)
    if not abs(found - said) <= margin * (1 + 1e-9):
        hint = "" if unit == 1 else f" (a unit of {unit:,.15g}; `scale=1` if the value is in the text's unit)"
        raise AssertionError(
            f"the prose says {text!r}, that is {said:,.15g}{hint}; the code says {found:,.15g},"
            f" which is off by {abs(found - said):,.6g} where {margin:,.6g} is allowed"
        )
