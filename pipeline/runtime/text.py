"""Text that people give (names, paths, errors), shown as what it is: one function for each place it is shown in."""

import hashlib
import re
import unicodedata

# What acts on a terminal or on the direction of text instead of being seen; joiners, which some scripts need, do not.
_ACTS = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufeff\ufffe\uffff]"
)
_BREAKS = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}
_MARKDOWN = re.compile(r"[\\`*_\[\]<>|#~&$]")
_BLOCK = re.compile(r"^(\d{1,9})?([-+](?=\s)|-{2,}|=+|(?<=\d)[.)](?=\s|$))")
_FIRST_STRONG, _END_OF_ISOLATE = "\u2068", "\u2069"
_LONGEST_NAME = 200  # bytes; the limit is 255, and leases and unfinished files add to a name
_DIGEST = 8
_TYPOGRAPHY = {
    "±": "+/-", "−": "-", "–": "-", "—": "-", "…": "...", "’": "'", "‘": "'", "“": '"', "”": '"', "×": "x", "·": "-",
    "†": "+", "²": "2", "━": "-", "╸": "-", "╺": "-", "─": "-", "│": "|", "╭": "+", "╮": "+", "╰": "+", "╯": "+",
}  # fmt: skip


def visible(text: str) -> str:
    """The text on one line, with an escape (`\\n`, `\\x1b`, `\\u202e`) for each character that acts and is not seen."""
    return _ACTS.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    letter = match[0]
    return _BREAKS.get(letter) or (rf"\x{ord(letter):02x}" if ord(letter) < 256 else rf"\u{ord(letter):04x}")


def isolated(text: str) -> str:
    """`visible`, and between marks that keep its direction from the text around it if some of it runs right to left."""
    shown = visible(text)
    if shown.isascii() or not any(unicodedata.bidirectional(letter) in ("R", "AL", "AN") for letter in shown):
        return shown
    return f"{_FIRST_STRONG}{shown}{_END_OF_ISOLATE}"


def markdown(text: object) -> str:
    """Escapes text for Markdown, also inside a table or at the start of a line: no markup, entity or formula."""
    shown = isolated(" ".join(str(text).split()))
    return _BLOCK.sub(r"\1\\\2", _MARKDOWN.sub(r"\\\g<0>", shown))


def file_name(text: str) -> str:
    """A file's name that resembles the text: other characters for those that some systems refuse, and not too long.

    A text that is cut keeps its meaning apart from others by a digest at its end.
    """
    name = re.sub(r"[^\w.+-]", "_", text).lstrip(".")
    encoded = name.encode()
    if len(encoded) <= _LONGEST_NAME:
        return name
    kept = encoded[: _LONGEST_NAME - _DIGEST - 1].decode(errors="ignore")
    return f"{kept}-{hashlib.sha256(text.encode()).hexdigest()[:_DIGEST]}"


def in_other_letters(error: UnicodeError) -> tuple[str, int]:
    """An error handler of codecs: what an encoding lacks is written in its ASCII likeness, or as an escape."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    escaped = (
        _TYPOGRAPHY.get(letter) or letter.encode("ascii", "backslashreplace").decode("ascii") for letter in lacking
    )
    return "".join(escaped), error.end
