"""Filter strings to filter trees; the grammar stands in ``grammar.lark``."""

from __future__ import annotations

import difflib
import functools
import importlib.resources
from datetime import datetime
from typing import Any

import lark

from gingham.errors import FilterSyntaxError
from gingham.query.ast import OPERATORS, And, Compare, Contains, In, IsNull, Node, Not, Or, StartsWith, Value, as_utc

MAX_CHARS = 100_000
MAX_DEPTH = 200
"""Parentheses and NOTs within each other: deeper trees would overflow Python's stack."""

_KEYWORDS = (
    "AND",
    "OR",
    "NOT",
    "IN",
    "IS",
    "NULL",
    "LIKE",
    "BETWEEN",
    "CONTAINS",
    "TRUE",
    "FALSE",
    "TIMESTAMP",
)
_READABLE = {
    "NAME": "a field",
    "QUOTED": "a quoted field",
    "OPERATOR": "one of = != < <= > >=",
    "STRING": "a 'text'",
    "NUMBER": "a number",
    "LPAR": "(",
    "RPAR": ")",
    "COMMA": ",",
    "$END": "the end",
}


def parse(text: str) -> Node:
    """Parse a filter string.

    Raises
    ------
    FilterSyntaxError : the text is not in the grammar; the message shows the place with a caret
    """
    if len(text) > MAX_CHARS:
        raise FilterSyntaxError(f"a filter expects at most {MAX_CHARS} characters, found {len(text)}", pos=MAX_CHARS)
    _check_depth(text)
    try:
        return _builder().transform(_parser().parse(text))
    except lark.exceptions.UnexpectedInput as error:
        raise _syntax_error(text, error) from None
    except lark.exceptions.VisitError as error:
        if isinstance(error.orig_exc, FilterSyntaxError):
            raise error.orig_exc from None
        raise
    except RecursionError:
        raise FilterSyntaxError(f"a filter expects at most {MAX_DEPTH} nested conditions, found more", pos=0) from None


@functools.cache
def _parser() -> lark.Lark:
    grammar = importlib.resources.files(__package__).joinpath("grammar.lark").read_text("utf-8")
    return lark.Lark(grammar, parser="lalr", maybe_placeholders=False)


@functools.cache
def _builder() -> _Builder:
    return _Builder()


def _check_depth(text: str) -> None:
    depth = nots = 0
    quote = ""
    for position, character in enumerate(text):
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character == "(":
            depth += 1
        elif character == ")":
            depth -= 1
        if depth > MAX_DEPTH:
            raise FilterSyntaxError(f"a filter expects at most {MAX_DEPTH} nested parentheses", pos=position)
    nots = text.upper().count("NOT")
    if nots > 5 * MAX_DEPTH:
        raise FilterSyntaxError(f"a filter expects at most {5 * MAX_DEPTH} negations, found {nots}")


class _Builder(lark.Transformer[Any, Node]):
    """Builds nodes from the parse tree."""

    def field(self, children: list[lark.Token]) -> str:
        token = children[0]
        return token[1:-1].replace('""', '"') if token.type == "QUOTED" else str(token)

    def number(self, children: list[lark.Token]) -> int | float:
        text = str(children[0])
        try:
            return int(text)
        except ValueError:
            return float(text)

    def string(self, children: list[lark.Token]) -> str:
        return _text(children[0])

    def true(self, children: list[Any]) -> bool:
        return True

    def false(self, children: list[Any]) -> bool:
        return False

    def timestamp(self, children: list[lark.Token]) -> datetime:
        text = _text(children[0])
        try:
            return as_utc(datetime.fromisoformat(text))
        except ValueError:
            position = children[0].start_pos or 0
            raise FilterSyntaxError(
                f"a TIMESTAMP expects ISO 8601 such as '2024-01-31T12:00:00Z', found {text!r}", pos=position
            ) from None

    def values(self, children: list[Value]) -> tuple[Value, ...]:
        return tuple(children)

    def compare(self, children: list[Any]) -> Node:
        field, op, value = children
        return Compare(field, {"=": "==", "<>": "!="}.get(op, _operator(op)), value)

    def is_null(self, children: list[Any]) -> Node:
        return IsNull(children[0])

    def is_not_null(self, children: list[Any]) -> Node:
        return Not(IsNull(children[0]))

    def is_in(self, children: list[Any]) -> Node:
        return In(children[0], children[1])

    def is_not_in(self, children: list[Any]) -> Node:
        return Not(In(children[0], children[1]))

    def like(self, children: list[Any]) -> Node:
        return StartsWith(children[0], _prefix(children[1]))

    def not_like(self, children: list[Any]) -> Node:
        return Not(self.like(children))

    def between(self, children: list[Any]) -> Node:
        field, low, high = children
        return And((Compare(field, ">=", low), Compare(field, "<=", high)))

    def not_between(self, children: list[Any]) -> Node:
        return Not(self.between(children))

    def contains(self, children: list[Any]) -> Node:
        return Contains(children[0], (children[1],))

    def contains_any(self, children: list[Any]) -> Node:
        return Contains(children[0], children[1])

    def always(self, children: list[Any]) -> Node:
        return And(())

    def never(self, children: list[Any]) -> Node:
        return Or(())

    def negate(self, children: list[Any]) -> Node:
        return Not(children[0])

    def both(self, children: list[Any]) -> Node:
        return And(tuple(children))

    def either(self, children: list[Any]) -> Node:
        return Or(tuple(children))


def _operator(op: str) -> Any:
    return op if op in OPERATORS else "=="


def _text(token: lark.Token) -> str:
    return str(token)[1:-1].replace("''", "'")


def _prefix(token: lark.Token) -> str:
    """Prefix of a LIKE pattern; only a trailing ``%`` is allowed, ``\\`` escapes."""
    pattern, position = _text(token), token.start_pos or 0
    out = []
    at = 0
    while at < len(pattern):
        character = pattern[at]
        if character == "\\" and at + 1 < len(pattern):
            at += 1
            out.append(pattern[at])
        elif character == "%" and at == len(pattern) - 1:
            return "".join(out)
        elif character in "%_":
            break
        else:
            out.append(character)
        at += 1
    raise FilterSyntaxError(
        f"LIKE expects a prefix and one final %, such as 'abc%', found {pattern!r}; use = for whole values",
        pos=position,
    )


def _syntax_error(text: str, error: lark.exceptions.UnexpectedInput) -> FilterSyntaxError:
    position = error.pos_in_stream if error.pos_in_stream is not None and error.pos_in_stream >= 0 else len(text)
    names = getattr(error, "expected", None) or getattr(error, "allowed", None) or set()
    expected = sorted({_READABLE.get(name, name.lstrip("_")) for name in names})
    token = getattr(error, "token", None)
    if token is not None and token.type == "$END":
        position, found = len(text), "the end"
    else:
        word = text[position:].split(maxsplit=1)
        found = repr(word[0][:40]) if word else "the end"
    near = difflib.get_close_matches(found.strip("'").upper(), _KEYWORDS, n=1, cutoff=0.7)
    hint = f"did you mean {near[0]}?" if near and near[0] in expected else ""
    start = text.rfind("\n", 0, position) + 1
    line = text[start:].split("\n", 1)[0]
    left = max(0, position - start - 60)
    shown, caret = line[left : left + 120], " " * (position - start - left) + "^"
    message = f"a filter expects {' or '.join(expected) or 'something else'} at character {position}, found {found}"
    return FilterSyntaxError(f"{message}{'; ' + hint if hint else ''}\n  {shown}\n  {caret}", pos=position, hint=hint)
