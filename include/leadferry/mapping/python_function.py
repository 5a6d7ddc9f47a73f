"""The transform `python`: a function of the user's own, in pandas."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pydantic import Field

from leadferry.errors import RenderError
from leadferry.mapping.step import Context, Options

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

VALUE = "value"
"""The column under which the function finds the field's own value so far."""

_HINT = "Correct the function, or take the transform out of the batch file"


class PythonFunction(Options):
    """Calls a function with a `pandas.DataFrame`; it returns a `pandas.Series` with one value per row."""

    function: str = Field(
        pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)+$",
        description="Dotted name of the function, for example my_package.leads.score.",
    )
    reads: list[str] = Field(default=[], description="Names of further lead fields that the function needs.")

    def load(self) -> Callable[[pd.DataFrame], Any]:
        """Import the function.

        Raises:
            RenderError: the module cannot be imported, or there is no such function in it.
        """
        module_name, _, name = self.function.rpartition(".")
        try:
            function = getattr(import_module(module_name), name, None)
        except Exception as error:  # noqa: BLE001 - an imported module may raise anything
            raise RenderError(
                f"python: module {module_name!r} cannot be imported ({_where(error, self.function)})",
                hint=_HINT,
            ) from None
        if not callable(function):
            raise RenderError(f"python: there is no function {name!r} in module {module_name!r}", hint=_HINT)
        return function  # type: ignore[no-any-return]  # what it really returns is checked after the call

    def apply(self, values: pl.Series, context: Context) -> pl.Series:
        """Call the function for this block of leads; null in its answer means that there is no value."""
        frame = _to_pandas(context.sources, values)
        try:
            answer = self.load()(frame)
        except RenderError:
            raise
        except Exception as error:  # noqa: BLE001 - the user's function may raise anything
            # Its message may quote a lead, so only the kind and the place are told.
            raise RenderError(
                f"python: the function raised {_where(error, self.function)}", hint=_HINT
            ) from None
        return self._checked(answer, rows=len(values))

    def _checked(self, answer: Any, *, rows: int) -> pl.Series:
        import pandas as pd
        import polars as pl

        if not isinstance(answer, pd.Series):
            raise RenderError(
                f"python: {self.function} returned {type(answer).__name__}, not a pandas.Series", hint=_HINT
            )
        if not answer.index.equals(pd.RangeIndex(rows)):
            raise RenderError(
                f"python: {self.function} returned {len(answer)} values for {rows} leads, or changed their index",
                hint=_HINT,
            )
        values = answer.astype(object).where(answer.notna(), None).tolist()
        try:
            column = pl.Series(
                values, dtype=None if any(value is not None for value in values) else pl.String
            )
        except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError):
            column = pl.Series(dtype=pl.Object)
        if column.dtype.is_nested() or column.dtype == pl.Object:
            raise RenderError(
                f"python: {self.function} must return texts, numbers, dates or truth values, all of one type",
                hint=_HINT,
            )
        return column


def _to_pandas(sources: pl.DataFrame, values: pl.Series) -> pd.DataFrame:
    import pandas as pd
    import polars as pl

    text = {name: sources.get_column(name) for name in sources.columns}
    columns = {name: pd.Series(column.to_list(), dtype="str") for name, column in text.items()}
    own = pd.Series(values.to_list(), dtype="str" if values.dtype == pl.String else None)
    return pd.DataFrame(columns | {VALUE: own}, index=pd.RangeIndex(len(values)))


def _where(error: Exception, dotted: str) -> str:
    """Name the kind of an error and the line in the user's own module; never its message."""
    module = dotted.rpartition(".")[0].replace(".", "/")
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename.replace("\\", "/").endswith((f"{module}.py", f"{module}/__init__.py"))
    ]
    return f"{type(error).__name__} in {dotted}" + (f", line {lines[-1]}" if lines else "")
