"""The contract's rules for a CSV field, letter by letter, and cells that try them.

They are written down here once more, and in another way than the service has them, so that its
three writers (SQL, C and Python) can be held against them.
"""

from typing import Final

_RUNS: Final = frozenset("=@\t\r\n＝＋－＠")
_SIGNS: Final = frozenset("+-")
_IN_PHONE_NUMBERS: Final = frozenset("0123456789 ().,-/")
_DELIMITERS: Final = frozenset(",;\t|")
_MARK: Final = "\ufeff"

RUN_BY_A_SPREADSHEET: Final = (
    *("=1+1", "=", "=cmd|' /C calc'!A0", "@SUM(A1)", "@", "\tx", "\t", "\rx", "\n=1", "\r\n=1"),
    *("＝1", "＋1", "－1", "＠x", "－", "+1+1", "-2+3+cmd|' /C calc'!A0", "-x", "+a", "-=1", "+@x"),
    *("- SUM(A1)", "-1e5", "-1;2", "-1\n=2", "-1\xa0000", "-1'", "+١", "--1=2", '-"1"', "=1,2"),
    *("\ufeff=1", "\ufeff\ufeff@x", "\ufeff+a", "\ufeff-1\n=2", "\ufeff＝1", "\ufeff\tx"),
    *("=1;=2", "\ufeff=1|=2", "＠x;y"),
)
FORMULAS_WITHIN: Final = (
    *("a;=1+1", "a;=1+1;b", "a,=1+1,b", "a\t=1+1\tb", "a|=1+1|b", "a;@SUM(A1)", "a;+1", "a|-1"),
    *("a;＝1", "a|＋1", "a\t－1", "a,＠x", "a;\ufeff=1", "a;\t", "a|\ufeff\ufeff-1", ";=1", "|=1"),
    *("x\n=1+1", "x;\n", "xxxxxxx;=1", "xxxxxxxx;=1", ";;;;;;;;;;;;;;;;=1", "a;b;c;d;e;f;g;h;=1"),
    *("+1,-2", "\ufeff1;-2", "é;=1", "'=1;=2"),
)
HARMLESS: Final = (
    *("", " ", "a", "a=1", " =1", "'=1", '"=1"', "0", "-", "+", "--", "-12.50", "-1,234.56", "+1"),
    *("- 1", "-(1)", "+44 20 7946 0958", "+1 (212) 555-0100", "+49/30-1234", "(0117) 496 0100"),
    *("1-1", "%41", "|x", "−1", "é=1", "💍=1", "ａ", "a; =1", "a;1", "a|b", "a;b=1", "a;'=1", ";"),
    *("\ufeff", "\ufeffa=1", "\ufeff+44 20", "\ufeff-", "a;\ufeff", "x" * 40 + ";", "a;ｆ", "a;＜"),
)
CELLS: Final = (*RUN_BY_A_SPREADSHEET, *FORMULAS_WITHIN, *HARMLESS)


def is_run(text: str) -> bool:
    """Return whether a spreadsheet would run a cell of this text."""
    text = text.lstrip(_MARK)
    if text[:1] in _SIGNS:
        return not _IN_PHONE_NUMBERS.issuperset(text[1:])
    return text[:1] in _RUNS


def holds_formula(text: str) -> bool:
    """Return whether a delimiter, whichever it is, stands right before what begins a formula."""
    behind = (
        text[at + 1 :].lstrip(_MARK) for at, letter in enumerate(text) if letter in _DELIMITERS
    )
    return any(rest[:1] in _RUNS | _SIGNS for rest in behind if rest)


def guarded(text: str) -> str:
    """The text as a guarded file's reader gets it."""
    return "'" + text if is_run(text) else text


def field(
    text: str | None, delimiter: str = ",", *, guard: bool = True, quote_all: bool = False
) -> str:
    """The field of a text; None is NULL."""
    if text is None:
        return '""' if quote_all else ""
    quoted = quote_all or text == "" or bool({delimiter, '"', "\r", "\n"} & {*text})
    shown = guarded(text) if guard else text
    if quoted or (guard and holds_formula(text)):
        return '"' + shown.replace('"', '""') + '"'
    return shown
