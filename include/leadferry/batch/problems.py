"""What is wrong in which line: the one form in which every fault of a file under `config/` is told.

A problem is data first and text second, so that `leadferry check --json`, the DAG of broken files
and the exception that a task raises all say the same.
"""

from __future__ import annotations

import difflib
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePath

from leadferry.batch.secret_literals import redact
from leadferry.errors import BatchConfigError, LeadferryError

Path = tuple[str | int, ...]
"""Keys and list positions from the top of a file to a value, for example `("destinations", 0, "type")`."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One fault, with the place where a person has to look."""

    file: str
    """The file as people know it, for example `config/batches/acme.yaml`."""
    line: int
    """Counts from 1."""
    text: str
    """What is wrong and what is allowed; never a secret."""
    path: Path = ()
    """Where in the file's structure; empty for the file as a whole."""
    column: int | None = None
    """Counts from 1; only where YAML itself could not be read."""

    def __str__(self) -> str:
        """Say it in one line that editors and terminals can jump to."""
        place = f"{self.file}:{self.line}" + (f":{self.column}" if self.column else "")
        key = f"{dotted(self.path)}: " if self.path else ""
        return f"{place}: {redact(key + self.text)}"


class BatchFileError(BatchConfigError):
    """All problems that keep one batch from existing, one per line, in the order of the lines."""

    def __init__(self, what: str, *, hint: str | None = None, problems: Sequence[Problem] = ()) -> None:
        super().__init__(what, hint=hint)
        self.problems = tuple(problems)

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle with the problems, so that another process can still list them."""
        return (_rebuild, (self.what, self.next_step, self.problems))

    @classmethod
    def of(cls, problems: Iterable[Problem]) -> BatchFileError:
        """Make the error that tells these problems, each once."""
        ordered = sorted(dict.fromkeys(problems), key=lambda one: (one.file, one.line, one.column or 0))
        return cls("\n".join(str(one) for one in ordered), problems=ordered)


def _rebuild(what: str, hint: str, problems: tuple[Problem, ...]) -> BatchFileError:
    return BatchFileError(what, hint=hint, problems=problems)


@contextmanager
def bugs_told_of(shown: str) -> Iterator[None]:
    """Make of a bug in our own code a problem of the file that brought it to light, so that it stops no other batch.

    Args:
        shown: the file as people know it.

    Raises:
        BatchFileError: in the place of an exception that nobody foresaw.
    """
    try:
        yield
    except LeadferryError:
        raise
    except Exception as error:  # noqa: BLE001  # whatever it is, the other batches depart
        text = f"{bug(error)} keeps this file from being read; please report this"
        raise BatchFileError.of([Problem(file=shown, line=1, text=text)]) from None


def bug(error: Exception) -> str:
    """Name an exception that nobody foresaw by its kind and by where in the code it happened; nothing of what it says."""
    at = traceback.extract_tb(error.__traceback__)[-1]
    return f"a bug in Leadferry ({type(error).__name__} at {PurePath(at.filename).name}:{at.lineno})"


def dotted(path: Path) -> str:
    """Write a path as people read it: `destinations[0].type`, `lookup['New York']`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part.replace("_", "").replace("-", "").isalnum() or part == "<<":
            text += f".{part}" if text else part
        else:
            text += f"[{part!r}]"
    return text


def did_you_mean(word: object, allowed: Iterable[object]) -> str:
    """Return `; did you mean 'sftp'?` when one of the allowed words is close, else nothing."""
    names = {str(name).lower(): str(name) for name in allowed}
    close = difflib.get_close_matches(str(word).lower(), names, n=1, cutoff=0.6)
    return f"; did you mean {names[close[0]]!r}?" if close else ""
