"""YAML as people who write batch files expect it: few types, no surprises, every fault with its line.

The rules are those of YAML 1.2's core schema, made a little stricter, because the usual loader (YAML 1.1) turns
`on` and `NO` into booleans, `09:00` into 540, `2024-01-31` into a date and the ZIP code `02138` into 1118:

* `true` and `false` are booleans; `yes`, `no`, `on`, `off` are words.
* Times, dates, and digits with a leading zero are text; so are numbers of more than 18 digits (they are ids).
* Keys are always text, exactly as written.
* The same key twice is an error; anchors, aliases and `<<` work; tags such as `!!python/…` do not.
* A file has bounded size, depth and number of values, so that no file can exhaust the process that reads it.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path as FilePath
from typing import Any, Final

import yaml

from leadferry.batch.problems import BatchFileError, Path, Problem
from leadferry.batch.secret_literals import INSTEAD, is_secret_key, secrets_in

MAX_BYTES: Final = 1_000_000
MAX_DEPTH: Final = 40
MAX_VALUES: Final = 100_000

_STR: Final = "tag:yaml.org,2002:str"
_INT: Final = "tag:yaml.org,2002:int"
_FLOAT: Final = "tag:yaml.org,2002:float"
_BOOL: Final = "tag:yaml.org,2002:bool"
_NULL: Final = "tag:yaml.org,2002:null"
_MAP: Final = "tag:yaml.org,2002:map"
_SEQ: Final = "tag:yaml.org,2002:seq"
_MERGE: Final = "tag:yaml.org,2002:merge"

_WORDS: Final = {
    "true": _BOOL, "True": _BOOL, "TRUE": _BOOL, "false": _BOOL, "False": _BOOL, "FALSE": _BOOL,
    "null": _NULL, "Null": _NULL, "NULL": _NULL, "~": _NULL, "": _NULL, "<<": _MERGE,
}  # fmt: skip
_WHOLE: Final = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})")
_DECIMAL: Final = re.compile(
    r"[-+]?(?:(?:0|[1-9][0-9]{0,17})\.[0-9]{0,17}|\.[0-9]{1,17}|[1-9][0-9]{0,17}(?=[eE]))(?:[eE][-+]?[0-9]{1,2})?"
)
_CONTROL: Final = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

_PLAIN_WORDS: Final = (
    (
        "mapping values are not allowed",
        "a colon stands where no key can be: quote the text, or check the indent",
    ),
    (
        "did not find expected key",
        "a key was expected: check the indent of this line and the quotes before it",
    ),
    ("did not find expected '-'", "a list item ('- …') was expected: check the indent of this line"),
    ("did not find expected ',' or ']'", "a list is not closed: a ',' or ']' is missing before this place"),
    (
        "did not find expected ',' or '}'",
        "a mapping is not closed: a ',' or '}' is missing before this place",
    ),
    ("could not find expected ':'", "a ':' is missing behind a key before this place"),
    ("found unexpected end of stream", "a quote is opened here and never closed"),
    ("found undefined alias", "this alias (*name) has no anchor (&name) before it"),
    (
        "block sequence entries are not allowed",
        "a list item ('- …') cannot start here: put it on its own line",
    ),
    ("found unknown escape character", "a backslash in double quotes must be doubled; or use single quotes"),
    ("but found another document", "a second document starts here ('---'); a file holds one"),
)


@dataclass(frozen=True, eq=False)
class YamlFile:
    """A file as read: its values, and the tree of nodes that remembers the lines."""

    shown: str
    """The file's name in messages."""
    data: Any
    """Dicts, lists, texts, whole and decimal numbers, booleans, None; nothing else."""
    root: yaml.Node | None
    problems: tuple[Problem, ...] = ()
    """Keys that stand twice, tags, secrets: the file can be read, but not used."""

    def line(self, path: Path) -> int:
        """Return the line (from 1) where a path stands, or the nearest part of it that exists."""
        return _line(self.steps(path))

    def key_line(self, path: Path) -> int:
        """Return the line of the key itself rather than of its value."""
        steps = self.steps(path)
        key = steps[-1][0]
        return _number(key) if key is not None else _line(steps)

    def steps(self, path: Path) -> list[tuple[yaml.Node | None, yaml.Node | None]]:
        """Return (key, value) of the top and of each part of the path, as far as it exists."""
        found: list[tuple[yaml.Node | None, yaml.Node | None]] = [(None, self.root)]
        for part in path:
            step = child(found[-1][1], part)
            if step is None:
                break
            found.append(step)
        return found


def child(node: yaml.Node | None, part: str | int) -> tuple[yaml.Node | None, yaml.Node] | None:
    """Return (key, value) under a node, looking into merged (`<<`) mappings too; None when it is not there."""
    if isinstance(node, yaml.SequenceNode):
        inside = isinstance(part, int) and 0 <= part < len(node.value)
        return (None, node.value[part]) if inside else None
    if not isinstance(node, yaml.MappingNode):
        return None
    for key, value in node.value:
        if key.tag != _MERGE and key.value == str(part):
            return key, value
    for key, value in node.value:
        if key.tag == _MERGE:
            for merged in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                step = child(merged, part)
                if step is not None:
                    return step
    return None


def _line(steps: list[tuple[yaml.Node | None, yaml.Node | None]]) -> int:
    key, value = steps[-1]
    if value is None:
        return 1
    # A block list or mapping starts on the line after its key; the key is where a reader looks.
    if key is not None and isinstance(value, yaml.CollectionNode):
        return _number(key)
    return _number(value)


def _number(node: yaml.Node) -> int:
    line: int = node.start_mark.line
    return line + 1


class _Composer(yaml.CSafeLoader):
    """libyaml's parser, with our idea of what plain words mean; used up to the tree of nodes, not further."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.depth = 0

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> str:
        if kind is not yaml.ScalarNode:
            return _MAP if kind is yaml.MappingNode else _SEQ
        return _plain_tag(value) if implicit[0] else _STR

    def descend_resolver(self, current_node: Any, current_index: Any) -> None:
        # libyaml's binding composes recursively in C and would overflow the stack, which no `except` catches.
        del current_index
        self.depth += 1
        if self.depth > MAX_DEPTH:
            line = current_node.start_mark.line if current_node is not None else 0
            raise _TooMuchError(line + 1, f"nested deeper than {MAX_DEPTH} levels")

    def ascend_resolver(self) -> None:
        self.depth -= 1


class _TooMuchError(Exception):
    def __init__(self, line: int, text: str) -> None:
        super().__init__(text)
        self.line = line
        self.text = text


def _plain_tag(value: str) -> str:
    if value[:1] in "+-.0123456789" and value:
        if _WHOLE.fullmatch(value):
            return _INT
        return _FLOAT if _DECIMAL.fullmatch(value) else _STR
    return _WORDS.get(value, _STR)


@dataclass
class _Builder:
    """Turns nodes into values; keeps going after a fault, so that all are told at once."""

    shown: str
    problems: list[Problem] = field(default_factory=list)
    built: int = 0

    def value(self, node: yaml.Node, path: Path) -> Any:
        self.built += 1
        if self.built > MAX_VALUES:
            raise _TooMuchError(
                _number(node), f"more than {MAX_VALUES} values, aliases counted each time they are used"
            )
        if len(path) > MAX_DEPTH:  # an alias to a node that it is part of never ends
            raise _TooMuchError(_number(node), f"nested deeper than {MAX_DEPTH} levels")
        if isinstance(node, yaml.ScalarNode):
            return node.value if node.tag == _STR else self.scalar(node, path)
        if isinstance(node, yaml.SequenceNode) and node.tag == _SEQ:
            return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode) and node.tag == _MAP:
            return self.mapping(node, path)
        return self.refuse(node, path, "tags (!…) are not used in these files; write the plain value")

    def scalar(self, node: yaml.ScalarNode, path: Path) -> Any:
        value: str = node.value
        if node.tag == _NULL:
            return None
        if node.tag == _INT and _WHOLE.fullmatch(value):
            return int(value)
        if node.tag == _FLOAT and _plain_tag(value) in (_FLOAT, _INT):
            return float(value)
        if node.tag == _BOOL and _WORDS.get(value) == _BOOL:
            return value[0] in "tT"
        if node.tag == _MERGE:
            return value
        return self.refuse(node, path, "tags (!…) are not used in these files; write the plain value")

    def mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        own: dict[str, Any] = {}
        lines: dict[str, int] = {}
        merged: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self.refuse(
                    key,
                    path,
                    "a key must be a text; a template ({{ … }}) at the start of a value needs quotes",
                )
            elif key.tag == _MERGE:
                merged = {**self.merge(value, path), **merged}
            elif key.value in own:
                text = f"this key stands twice here, first on line {lines[key.value]}"
                self.refuse(key, (*path, key.value), text)
            else:
                lines[key.value] = _number(key)
                own[key.value] = self.value(value, (*path, key.value))
        return {**merged, **own} if merged else own

    def merge(self, node: yaml.Node, path: Path) -> dict[str, Any]:
        parts = node.value if isinstance(node, yaml.SequenceNode) else [node]
        merged: dict[str, Any] = {}
        for part in parts:
            value = self.value(part, (*path, "<<"))
            if isinstance(value, dict):
                merged = {**value, **merged}
            else:
                self.refuse(part, (*path, "<<"), "only a mapping (*name) or a list of mappings can be merged")
        return merged

    def refuse(self, node: yaml.Node, path: Path, text: str) -> None:
        self.problems.append(Problem(file=self.shown, line=_number(node), path=path, text=text))


def read_yaml(file: FilePath, *, shown: str) -> YamlFile:
    """Read one file.

    Args:
        file: where it is.
        shown: its name in messages, for example `config/batches/acme.yaml`.

    Returns:
        What could be read. It must not be used when it has `problems`, only be searched for more of them.

    Raises:
        BatchFileError: it is not there, too large, not UTF-8, not YAML.
    """
    try:
        # One byte more than allowed tells that it is too large, without reading a disk image into memory.
        with file.open("rb") as opened:
            raw = opened.read(MAX_BYTES + 1)
    except OSError as error:
        reason = (
            "there is no such file" if isinstance(error, FileNotFoundError) else "the file cannot be read"
        )
        raise BatchFileError.of([Problem(file=shown, line=1, text=reason)]) from None
    return parse_yaml(_decode(raw, shown), shown=shown)


def parse_yaml(text: str, *, shown: str) -> YamlFile:
    """Read a text as if it stood in a file; see `read_yaml`."""
    builder = _Builder(shown)
    try:
        root = _compose(text, shown)
        data = None if root is None else builder.value(root, ())
    except _TooMuchError as error:
        raise BatchFileError.of([Problem(file=shown, line=error.line, text=error.text)]) from None
    read = YamlFile(shown, data, root)
    return replace(read, problems=(*builder.problems, *_secrets(read, text)))


def _decode(raw: bytes, shown: str) -> str:
    if len(raw) > MAX_BYTES:
        text = f"the file is larger than {MAX_BYTES:,} bytes; keep long lists outside of it"
        raise BatchFileError.of([Problem(file=shown, line=1, text=text)])
    try:
        return raw.removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        problem = Problem(file=shown, line=line, text="this is not UTF-8; save the file in that encoding")
        raise BatchFileError.of([problem]) from None


def _compose(text: str, shown: str) -> yaml.Node | None:
    control = _CONTROL.search(text)
    if control is not None:
        told = f"a control character (U+{ord(control[0]):04X}) stands here; remove it"
        raise BatchFileError.of([_at(text, control.start(), shown=shown, told=told)])
    try:
        composer = _Composer(text)
        try:
            node: yaml.Node | None = composer.get_single_node()
        finally:
            composer.dispose()
    except yaml.MarkedYAMLError as error:
        raise BatchFileError.of([_syntax_problem(error, text, shown)]) from None
    return node


def _at(text: str, offset: int, *, shown: str, told: str) -> Problem:
    line = text.count("\n", 0, offset) + 1
    return Problem(file=shown, line=line, column=offset - text.rfind("\n", 0, offset), text=told)


def _syntax_problem(error: yaml.MarkedYAMLError, text: str, shown: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line, mark.column) if mark else (0, 0)
    lines = text.splitlines()
    rest = lines[line][column:] if line < len(lines) else ""
    told = next((plain for theirs, plain in _PLAIN_WORDS if theirs in (error.problem or "")), None)
    if told and "{{" in (lines[line] if line < len(lines) else ""):
        told += "; a value with {{ … }} needs quotes"
    if "cannot start any token" in (error.problem or ""):
        if rest.startswith("\t"):
            told = "a tab stands where only spaces may be; indent with spaces"
        else:
            told = f"a value cannot start with {rest[:1]!r}; put it in quotes"
    return Problem(
        file=shown, line=line + 1, column=column + 1, text=told or error.problem or "this is not YAML"
    )


def _secrets(read: YamlFile, text: str) -> Iterator[Problem]:
    """Look for secrets in the whole text, comments too, and among the keys."""
    for offset, kind in secrets_in(text):
        line = text.count("\n", 0, offset) + 1
        path = _path_at(read.root, offset) if read.root is not None else ()
        yield Problem(file=read.shown, line=line, path=path, text=f"this looks like {kind}; {INSTEAD}")
    for path in _secret_keys(read.data, ()):
        told = f"a secret does not belong in this file; {INSTEAD}"
        yield Problem(file=read.shown, line=read.key_line(path), path=path, text=told)


def _secret_keys(data: Any, path: Path) -> Iterator[Path]:
    if isinstance(data, dict):
        for key, value in data.items():
            if is_secret_key(key):
                yield (*path, key)
            elif isinstance(value, (dict, list)):
                yield from _secret_keys(value, (*path, key))
    elif isinstance(data, list):
        for index, value in enumerate(data):
            if isinstance(value, (dict, list)):
                yield from _secret_keys(value, (*path, index))


def _path_at(node: yaml.Node, offset: int) -> Path:
    """Return the path of the scalar in which an offset of the text lies; empty in a comment or a key."""
    parts: list[tuple[str | int, yaml.Node]] = []
    if isinstance(node, yaml.MappingNode):
        parts = [(key.value, value) for key, value in node.value if isinstance(key, yaml.ScalarNode)]
    elif isinstance(node, yaml.SequenceNode):
        parts = list(enumerate(node.value))
    for part, value in parts:
        if value.start_mark.index <= offset < value.end_mark.index:
            below = _path_at(value, offset)
            return (part, *below) if below or isinstance(value, yaml.ScalarNode) else ()
    return ()
