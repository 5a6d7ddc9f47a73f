"""The one template language: file names, folders, subjects, bodies.

Sandboxed Jinja with a fixed set of variables, checked when the batch file is read: a variable that does not exist is
found before the first delivery, not at it. Templates know counts, dates and names of the delivery; they never see
a lead. What they yield depends on nothing but the variables, so that a delivery rendered twice is the same.
"""

from __future__ import annotations

import difflib
import re
import zoneinfo
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NoReturn

from jinja2 import StrictUndefined, TemplateSyntaxError, UndefinedError, meta, nodes
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import AfterValidator

from leadferry.errors import BatchConfigError, RenderError
from leadferry.zones import time_zone

if TYPE_CHECKING:
    from jinja2 import Template as CompiledTemplate
    from jinja2.runtime import Context

VARIABLES: dict[str, dict[str, type]] = {
    "batch": {"id": str, "name": str, "description": str},
    "recipient": {"id": str, "name": str, "timezone": str, "locale": str},
    "delivery": {
        "id": str,
        "number": int,
        "date": str,
        "time": str,
        "period": str,
        "period_from": str,
        "period_to": str,
        "year": str,
        "month": str,
        "day": str,
        "hour": str,
        "minute": str,
        "quarter": str,
        "week": str,
        "weekday": str,
        "month_name": str,
        "timezone": str,
        "fiscal_year": str,
        "fiscal_quarter": str,
        "fiscal_period": str,
    },
    "lead": {"count": int},
    "file": {"id": str, "name": str, "part": int, "parts": int, "segment": str},
}
"""Every variable that a template may use, and what it is."""

MAIL_VARIABLES: dict[str, dict[str, type]] = {
    "mail": {"summary": str, "files": list, "part": int, "parts": int, "chart": str}
}
"""What subjects and bodies of mails may use besides."""


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja that reaches nothing but the variables, and cannot be made to fill the memory by a product."""

    intercepted_binops: ClassVar[frozenset[str]] = frozenset({"*", "**"})  # type: ignore[misc]  # jinja declares it per instance

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Refuse powers and repeated texts; a file name needs neither."""
        if operator == "**" or not (isinstance(left, int) and isinstance(right, int)):
            raise SecurityError(f"{operator} is only for whole numbers, and ** is not allowed")
        return super().call_binop(context, operator, left, right)


@lru_cache(maxsize=1)
def _environment() -> _Sandbox:
    environment = _Sandbox(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True)
    environment.globals = {"range": environment.globals["range"]}
    # The same delivery must render to the same text every time.
    del environment.filters["random"]
    return environment


@lru_cache(maxsize=1024)
def _compiled(text: str) -> CompiledTemplate:
    return _environment().from_string(text)


Known = Mapping[str, Mapping[str, type]]


def compile_template(
    text: str,
    *,
    without: Iterable[str] = (),
    also: Known = MappingProxyType({}),
    free: Iterable[str] = (),
) -> None:
    """Check a template without rendering it.

    Args:
        text: as written in the batch file.
        without: variables that are not known yet where this template is used, such as `file.name` in a file's name.
        also: variables that only this template has, group by group, as in `VARIABLES`.
        free: variables that only this template has and whose parts nobody can check, such as a lead's fields.

    Raises:
        BatchConfigError: a syntax error, or a variable, filter or test that does not exist; says the line in the template.
    """
    known = _known(without=frozenset(without), also=also)
    if _is_plain(text, known):
        return
    try:
        tree = _environment().parse(text)
        _check_constructs(tree)
        _check_names(tree, known, free=frozenset(free))
        _check_variables(tree, known)
        _environment().compile(tree)
    except TemplateSyntaxError as error:
        raise BatchConfigError(f"template line {error.lineno}: {error.message}", hint=_CORRECT) from None


_CORRECT = "Correct the template in the batch file"

_PLAIN = re.compile(r"\{\{ *([a-z]+)\.([a-z_]+) *\}\}")


def _known(*, without: frozenset[str], also: Known) -> Known:
    if not without and not also:
        return VARIABLES
    groups = {
        group: {name: kind for name, kind in names.items() if f"{group}.{name}" not in without}
        for group, names in VARIABLES.items()
    }
    return {**groups, **also}


def _is_plain(text: str, known: Known) -> bool:
    """Say whether a template is certainly right: texts, and variables that are known here, and nothing else.

    Most are, and compiling one takes a millisecond, times every batch, each time the DAGs are parsed.
    """
    if "{" in _PLAIN.sub("", text):
        return False
    used = _PLAIN.findall(text)
    return all(name in known.get(group, {}) for group, name in used)


def _refuse(node: nodes.Node, what: str) -> NoReturn:
    raise BatchConfigError(f"template line {node.lineno}: {what}", hint=_CORRECT)


def _suggest(name: str, known: Iterable[str], *, prefix: str = "") -> str:
    choices = sorted(known)
    near = difflib.get_close_matches(name, choices, n=1)
    allowed = ", ".join(prefix + one for one in choices)
    return (f"did you mean {prefix}{near[0]}? " if near else "") + f"Allowed are {allowed}"


def _check_constructs(tree: nodes.Template) -> None:
    for node in tree.find_all((nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)):
        _refuse(node, "a template cannot load another one")
    environment = _environment()
    for found in tree.find_all((nodes.Filter, nodes.Test)):
        kind, known = (
            ("filter", environment.filters)
            if isinstance(found, nodes.Filter)
            else ("test", environment.tests)
        )
        if found.name not in known:
            _refuse(found, f"there is no {kind} {found.name!r}; {_suggest(found.name, known)}")


def _check_names(tree: nodes.Template, known: Known, *, free: frozenset[str]) -> None:
    unknown = meta.find_undeclared_variables(tree) - known.keys() - _environment().globals.keys() - free
    for node in tree.find_all(nodes.Name):
        if node.name in known and node.ctx != "load":
            _refuse(node, f"{node.name!r} is a variable of every template and cannot be set")
        if node.name in unknown:
            _refuse(node, f"unknown variable {node.name!r}; {_suggest(node.name, _all_variables(known))}")


def _all_variables(known: Known) -> list[str]:
    return [f"{group}.{name}" for group, names in known.items() for name in names]


def _check_variables(tree: nodes.Template, groups: Known) -> None:
    parents = {id(child): parent for parent in _walk(tree) for child in parent.iter_child_nodes()}
    for node in tree.find_all(nodes.Name):
        if node.name not in groups:
            continue
        name, access = _attribute(parents.get(id(node)), of=node)
        known = groups[node.name]
        if name is None or access is None:
            _refuse(node, f"{node.name!r} alone is no text; {_suggest('', known, prefix=f'{node.name}.')}")
        if name not in known:
            what = "is not known here" if name in VARIABLES.get(node.name, {}) else "is unknown"
            _refuse(
                node, f"variable '{node.name}.{name}' {what}; {_suggest(name, known, prefix=f'{node.name}.')}"
            )
        further, _ = _attribute(parents.get(id(access)), of=access)
        if further is not None and (further.startswith("_") or not hasattr(known[name], further)):
            _refuse(
                node,
                f"'{node.name}.{name}' has no part {further!r}; {_suggest(further, known, prefix=f'{node.name}.')}",
            )


def _walk(node: nodes.Node) -> Iterator[nodes.Node]:
    yield node
    for child in node.iter_child_nodes():
        yield from _walk(child)


def _attribute(parent: nodes.Node | None, *, of: nodes.Node) -> tuple[str | None, nodes.Node | None]:
    """Return the name by which `parent` takes a part of `of`: `a.b` or `a["b"]`."""
    if isinstance(parent, nodes.Getattr) and parent.node is of:
        return parent.attr, parent
    if isinstance(parent, nodes.Getitem) and parent.node is of and isinstance(parent.arg, nodes.Const):
        return (parent.arg.value, parent) if isinstance(parent.arg.value, str) else (None, None)
    return None, None


def _checked(text: str) -> str:
    try:
        compile_template(text)
    except BatchConfigError as error:
        raise ValueError(error.what) from None
    return text


def _checked_mail(text: str) -> str:
    try:
        compile_template(text, also=MAIL_VARIABLES)
    except BatchConfigError as error:
        raise ValueError(error.what) from None
    return text


def _checked_file_name(text: str) -> str:
    try:
        compile_template(text, without=["file.name"])
    except BatchConfigError as error:
        raise ValueError(error.what) from None
    if not text.strip():
        raise ValueError("a file needs a name")
    return text


Template = Annotated[str, AfterValidator(_checked)]
"""A text of the batch file with `{{ variables }}`, checked when the file is read."""

MailTemplate = Annotated[str, AfterValidator(_checked_mail)]
"""The same for the texts of a mail, which can also tell what the mail brings."""

FileNameTemplate = Annotated[str, AfterValidator(_checked_file_name)]
"""The same for the name of a file, which cannot be made of itself."""


def render(text: str, variables: Mapping[str, Any]) -> str:
    """Fill a template in.

    Args:
        text: the template.
        variables: what `variables()` returned.

    Raises:
        RenderError: the template is broken or asks for something that does not exist.
    """
    try:
        return _compiled(text).render(**variables)
    except (TemplateSyntaxError, UndefinedError, SecurityError) as error:
        raise RenderError(f"the template {_shown(text)} cannot be filled in: {error.message}") from None
    except Exception as error:  # noqa: BLE001 - filters and operators raise whatever Python raises
        raise RenderError(
            f"the template {_shown(text)} cannot be filled in ({type(error).__name__})"
        ) from None


_SHOWN = 80


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…")


def variables(  # noqa: PLR0913 - the one place where every variable is named
    *,
    batch_id: str,
    batch_name: str,
    batch_description: str = "",
    recipient_id: str,
    recipient_name: str,
    timezone: str,
    locale: str,
    delivery_id: str,
    delivery_number: int,
    departs_at: datetime,
    window_from: datetime | None,
    window_to: datetime,
    lead_count: int,
    fiscal: Mapping[str, str] | None = None,
    file_id: str = "",
    file_name: str = "",
    file_part: int = 1,
    file_parts: int = 1,
    file_segment: str = "",
) -> dict[str, dict[str, Any]]:
    """Return what templates may use, as texts and whole numbers; the same values wherever a template stands.

    Args:
        batch_id: the batch file's name.
        batch_name: as in the batch file.
        batch_description: as in the batch file.
        recipient_id: the recipient file's name.
        recipient_name: as in the recipient file.
        timezone: IANA name of the zone in which dates and times are told.
        locale: language and country of the names of days and months.
        delivery_id: the delivery's id in the ledger.
        delivery_number: counts the batch's deliveries from 1.
        departs_at: the departure; aware.
        window_from: when the delivery's period begins; aware. None when there was no delivery before.
        window_to: when the period ends, itself not included; aware.
        lead_count: leads in the delivery.
        fiscal: `fiscal_year`, `fiscal_quarter` and `fiscal_period` of the departure; the calendar year's when left out.
        file_id: the file's id in the batch file; empty where no file is meant.
        file_name: the file's final name; empty where it is not known yet.
        file_part: counts the parts of a divided file from 1.
        file_parts: how many parts there are.
        file_segment: the value that the file's leads share; empty where a file is not divided by one.

    Raises:
        ValueError: a time without a zone, an unknown zone or an unknown locale.
    """
    zone = time_zone(timezone)
    return {
        "batch": {"id": batch_id, "name": batch_name, "description": batch_description},
        "recipient": {"id": recipient_id, "name": recipient_name, "timezone": timezone, "locale": locale},
        "delivery": {
            "id": str(delivery_id),
            "number": delivery_number,
            "timezone": timezone,
            **_times(_local(departs_at, zone), locale=locale),
            **(fiscal or _calendar_year(_local(departs_at, zone))),
            **_period(window_from and _local(window_from, zone), _local(window_to, zone)),
        },
        "lead": {"count": lead_count},
        "file": {
            "id": file_id,
            "name": file_name,
            "part": file_part,
            "parts": file_parts,
            "segment": file_segment,
        },
    }


def _local(moment: datetime, zone: zoneinfo.ZoneInfo) -> datetime:
    if moment.tzinfo is None:
        raise ValueError("a time without a zone cannot be told in the recipient's zone")
    return moment.astimezone(zone)


def _times(moment: datetime, *, locale: str) -> dict[str, str]:
    from babel import Locale
    from babel.core import UnknownLocaleError
    from babel.dates import format_date

    try:
        language = Locale.parse(locale.replace("-", "_"))
    except (UnknownLocaleError, ValueError):
        raise ValueError(f"{locale!r} is no known locale; write it as en_US or de_DE") from None
    return {
        "date": f"{moment:%Y-%m-%d}",
        "time": f"{moment:%H%M}",
        "year": f"{moment:%Y}",
        "month": f"{moment:%m}",
        "day": f"{moment:%d}",
        "hour": f"{moment:%H}",
        "minute": f"{moment:%M}",
        "quarter": str((moment.month + 2) // 3),
        "week": f"{moment:%G}-W{moment:%V}",
        "weekday": format_date(moment, "EEEE", locale=language),
        "month_name": format_date(moment, "LLLL", locale=language),
    }


def _calendar_year(moment: datetime) -> dict[str, str]:
    return {
        "fiscal_year": f"{moment:%Y}",
        "fiscal_quarter": f"Q{(moment.month + 2) // 3}",
        "fiscal_period": f"P{moment:%m}",
    }


def _period(start: datetime | None, end: datetime) -> dict[str, str]:
    """Tell the days of a period whose end is not part of it: until midnight means until the day before."""
    last = end - timedelta(microseconds=1) if start is None or start < end else end
    first_day, last_day = f"{start:%Y-%m-%d}" if start else "", f"{last:%Y-%m-%d}"
    if start is None:
        told = f"up to {last_day}"
    else:
        told = last_day if first_day == last_day else f"{first_day} to {last_day}"
    return {"period": told, "period_from": first_day, "period_to": last_day}
