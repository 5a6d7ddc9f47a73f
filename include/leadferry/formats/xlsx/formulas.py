"""Formulas of the batch file, such as `=[Price]*[Quantity]`: what may stand in one, and what it gives for a lead.

Only arithmetic over fields, so that a formula can reach neither another workbook nor the network, and its value is
computed here as well: Excel's protected view, mail programs and phones show that value and calculate nothing.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, NoReturn

from pydantic import AfterValidator

if TYPE_CHECKING:
    import polars as pl

NO_VALUE = 8.5e307
"""Stands in the column where a formula has no value, such as after a division by zero; becomes an empty cell value."""

_TOKEN = re.compile(r"\s*(?:\[([^\[\]]+)\]|(\d+(?:\.\d+)?|\.\d+)|([A-Za-z]+)(?=\s*\()|([-+*/(),]))")
_OPERATORS: Mapping[type[ast.operator], str] = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}
_ARGUMENTS = {"ABS": (1, 1), "ROUND": (2, 2), "MIN": (1, 255), "MAX": (1, 255), "SUM": (1, 255)}
"""The functions, with the fewest and most arguments that Excel takes."""
_MOST_DIGITS = 10


@dataclass(frozen=True)
class Parsed:
    """A formula that was understood."""

    tree: ast.expr
    fields: tuple[str, ...]
    """The fields that it names, in order of appearance."""

    def excel(self, columns: Mapping[str, str]) -> str:
        """Return what stands in the cell, with `{row}` for the row's number.

        Args:
            columns: the letters of each field's column.
        """
        told = _outer(_excel(self.tree, [columns[name] for name in self.fields]))
        # A division by zero would show as an error, and make one of every total.
        divides = any(isinstance(node, ast.Div) for node in ast.walk(self.tree))
        return f'IFERROR({told},"")' if divides else told

    def value(self) -> pl.Expr:
        """Return what it gives, as Excel would calculate it: no value counts as 0."""
        import polars as pl

        fields = [pl.col(name).cast(pl.Float64).fill_null(0) for name in self.fields]
        value = _value(self.tree, fields)
        return pl.when(value.is_finite()).then(value).otherwise(NO_VALUE)


@lru_cache(maxsize=256)
def parse(text: str) -> Parsed:
    """Understand a formula.

    Raises:
        ValueError: it holds something else than fields, numbers, + - * / and the functions there are; says what.
    """
    fields: list[str] = []
    words, at = [], 1
    if not text.startswith("="):
        raise ValueError(f"the formula {text!r} does not begin with =")
    while text[at:].strip():
        token = _TOKEN.match(text, at)
        if token is None:
            _refuse(text, text[at:].strip()[:20])
        words.append(_word(token, fields))
        at = token.end()
    try:
        tree = ast.parse(" ".join(words), mode="eval").body
    except SyntaxError:
        raise ValueError(f"the formula {text!r} is not complete or has a sign too many") from None
    _check(tree, text)
    return Parsed(tree, tuple(fields))


def _word(token: re.Match[str], fields: list[str]) -> str:
    field, number, function, sign = token.groups()
    if not field:
        return number or function or sign
    if field not in fields:
        fields.append(field)
    return f"f{fields.index(field)}"


def _refuse(text: str, what: str) -> NoReturn:
    functions = ", ".join(_ARGUMENTS)
    raise ValueError(
        f"the formula {text!r} has {what!r}; allowed are [Field], numbers, + - * / ( ) and {functions}"
    )


def _check(node: ast.AST, text: str) -> None:
    if isinstance(node, ast.BinOp) and type(node.op) not in _OPERATORS:
        _refuse(text, "a sign twice")
    if isinstance(node, ast.Tuple | ast.Starred):
        _refuse(text, ",")
    if isinstance(node, ast.Call):
        _check_call(node, text)
    for child in ast.iter_child_nodes(node):
        _check(child, text)


def _check_call(node: ast.Call, text: str) -> None:
    name = node.func.id.upper() if isinstance(node.func, ast.Name) else "("
    if name not in _ARGUMENTS:
        _refuse(text, name)
    fewest, most = _ARGUMENTS[name]
    if not fewest <= len(node.args) <= most:
        raise ValueError(f"the formula {text!r} gives {name} {len(node.args)} arguments")
    if name == "ROUND" and not _is_digits(node.args[1]):
        raise ValueError(f"the formula {text!r} must say after how many digits to round, 0 to {_MOST_DIGITS}")


def _is_digits(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, int) and node.value <= _MOST_DIGITS


def _outer(text: str) -> str:
    """Drop the parentheses around the whole, which every operation brings."""
    return text[1:-1] if text.startswith("(") else text


def _excel(node: ast.AST, columns: list[str]) -> str:
    match node:
        case ast.BinOp():
            left, right = _excel(node.left, columns), _excel(node.right, columns)
            return f"({left}{_OPERATORS[type(node.op)]}{right})"
        case ast.UnaryOp():
            return f"({'-' if isinstance(node.op, ast.USub) else '+'}{_excel(node.operand, columns)})"
        case ast.Call(func=ast.Name(id=name)):
            inner = ",".join(_outer(_excel(argument, columns)) for argument in node.args)
            return f"{name.upper()}({inner})"
        case ast.Name():
            return f"{columns[int(node.id[1:])]}{{row}}"
        case ast.Constant():
            return repr(node.value)
    raise AssertionError(ast.dump(node))


def _value(node: ast.AST, fields: list[pl.Expr]) -> pl.Expr:
    import polars as pl

    match node:
        case ast.BinOp():
            return _operation(node.op, _value(node.left, fields), _value(node.right, fields))
        case ast.UnaryOp():
            inner = _value(node.operand, fields)
            return -inner if isinstance(node.op, ast.USub) else inner
        case ast.Call(func=ast.Name(id=name)):
            return _called(name.upper(), node, fields)
        case ast.Name():
            return fields[int(node.id[1:])]
        case ast.Constant():
            return pl.lit(float(str(node.value)))
    raise AssertionError(ast.dump(node))


def _operation(operator: ast.operator, left: pl.Expr, right: pl.Expr) -> pl.Expr:
    match operator:
        case ast.Add():
            return left + right
        case ast.Sub():
            return left - right
        case ast.Mult():
            return left * right
    return left / right


def _called(name: str, node: ast.Call, fields: list[pl.Expr]) -> pl.Expr:
    import polars as pl

    first, *rest = arguments = [_value(argument, fields) for argument in node.args]
    match name:
        case "ABS":
            return first.abs()
        case "ROUND":
            return _rounded(first, digits=int(ast.literal_eval(node.args[1])))
        case "MIN":
            return pl.min_horizontal(arguments)
        case "MAX":
            return pl.max_horizontal(arguments)
    return sum(rest, start=first)


def _rounded(value: pl.Expr, *, digits: int) -> pl.Expr:
    """Round as Excel does, which sees 15 digits: 2.975 is a half to it, though no binary number is."""
    import polars as pl

    shifted = (value.abs() * 10.0**digits).round_sig_figs(15)
    return pl.when(value < 0).then(-1.0).otherwise(1.0) * (shifted + 0.5).floor() / 10.0**digits


def _checked(text: str) -> str:
    parse(text)
    return text


Formula = Annotated[str, AfterValidator(_checked)]
"""A formula of the batch file, checked when the file is read."""
