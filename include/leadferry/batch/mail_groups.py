"""Groups of mail recipients become their members when a batch is loaded, and everybody's domain is checked.

A list is a file in `config/lists/`, a role is what contacts of the batch's recipient have. A change of either needs no
edit of a batch: the next departure goes to the new members; one that has begun keeps those that it began with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from leadferry.batch.explain import Layer, explain, locate
from leadferry.batch.model import Batch
from leadferry.batch.problems import BatchFileError, Path, Problem, did_you_mean
from leadferry.batch.yaml_file import YamlFile
from leadferry.destinations.email import Email
from leadferry.destinations.email.settings import Address, MailList, Personal, Role

LISTS = "lists"
"""The folder under `config/`."""

MAIL_DOMAINS = "mail_domains"
"""The key of `defaults.yaml` with the domains that leads may be mailed to; not inherited, so no batch can widen it."""

_ENTRIES = ("to", "cc", "bcc")
_ADDRESS: TypeAdapter[str] = TypeAdapter(Address)


class MailingList(BaseModel):
    """`config/lists/<name>.yaml`: addresses that batches name together."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    description: str = Field(default="", description="Whom it is for.")
    members: list[Address] = Field(min_length=1, description="Mail addresses.")


def read_list(file: YamlFile) -> MailingList:
    """Return a mailing list.

    Raises:
        BatchFileError: what is wrong with the file.
    """
    try:
        return MailingList.model_validate(file.data)
    except ValidationError as error:
        raise BatchFileError.of(explain(error, [Layer(file=file)], MailingList)) from None


def allowed_domains(defaults: YamlFile | None) -> list[str] | None:
    """Return the domains that leads may be mailed to; None where `defaults.yaml` does not limit them.

    Raises:
        BatchFileError: the key holds no list of domains.
    """
    named = None if defaults is None else defaults.data.get(MAIL_DOMAINS)
    if defaults is None or named is None:
        return None
    if not isinstance(named, list) or not all(isinstance(one, str) and "@" not in one for one in named):
        told = "must be a list of domains, such as [acme.example, '*.acme.example']"
        line = defaults.key_line((MAIL_DOMAINS,))
        raise BatchFileError.of([Problem(file=defaults.shown, line=line, path=(MAIL_DOMAINS,), text=told)])
    return [one.lower() for one in named]


@dataclass
class Groups:
    """Puts members in the place of groups, batch by batch.

    Args:
        lists: reads a list by its name.
        names: the lists that there are.
        domains: where mail may go; None for anywhere.
    """

    lists: Callable[[str], MailingList]
    names: Callable[[], Sequence[str]]
    domains: Sequence[str] | None
    problems: list[Problem] = field(default_factory=list)

    def resolve(self, batch: Batch, layers: Sequence[Layer]) -> Batch:
        """Return the batch with everybody who gets its mail; what is wrong is added to `problems`."""
        if not any(isinstance(one, Email) for one in batch.destinations):
            return batch
        found = [
            self._with_members(batch, one, layers, index) if isinstance(one, Email) else one
            for index, one in enumerate(batch.destinations)
        ]
        same = all(new is old for new, old in zip(found, batch.destinations, strict=True))
        return batch if same or self.problems else batch.model_copy(update={"destinations": found})

    def _with_members(self, batch: Batch, mail: Email, layers: Sequence[Layer], index: int) -> Email:
        seen = {str(one).lower() for one in mail.addressees()}
        resolved: dict[str, list[str | Personal]] = {}
        for key in _ENTRIES:
            resolved[key] = []
            for place, entry in enumerate(getattr(mail, key)):
                at = ("destinations", index, key, place)
                if isinstance(entry, MailList | Role):
                    members = self._members(batch, entry, layers, at)
                    new = [one for one in members if one.lower() not in seen]
                    seen.update(one.lower() for one in new)
                    resolved[key] += dict.fromkeys(new)
                    self._check_domains(members, layers, at)
                else:
                    resolved[key].append(entry)
                    self._check_domains([entry.address if isinstance(entry, Personal) else entry], layers, at)
        if not mail.groups or self.problems:
            return mail
        return Email.model_validate({**mail.model_dump(mode="json"), **resolved})

    def _members(self, batch: Batch, group: MailList | Role, layers: Sequence[Layer], at: Path) -> list[str]:
        if isinstance(group, Role):
            return list(self._contacts(batch, group, layers, at))
        known = self.names()
        if group.list not in known:
            there = ", ".join(known) or "none"
            told = f"there is no config/{LISTS}/{group.list}.yaml; known: {there}{did_you_mean(group.list, known)}"
            self.problems.append(_problem(layers, at, told))
            return []
        try:
            return self.lists(group.list).members
        except BatchFileError as error:
            self.problems += error.problems
            return []

    def _contacts(self, batch: Batch, group: Role, layers: Sequence[Layer], at: Path) -> Iterator[str]:
        recipient = batch.recipient
        having = [one.email for one in recipient.contacts if one.role == group.role and one.email]
        if not having:
            roles = sorted({one.role for one in recipient.contacts if one.role and one.email})
            told = (
                f"no contact of recipient {recipient.id!r} with a mail address has the role {group.role!r};"
                f" known: {', '.join(roles) or 'none'}{did_you_mean(group.role, roles)}"
            )
            self.problems.append(_problem(layers, at, told))
        for address in having:
            try:
                yield _ADDRESS.validate_python(address)
            except ValidationError:
                told = f"the address of a contact of recipient {recipient.id!r} with the role {group.role!r} is none"
                self.problems.append(_problem(layers, at, told))

    def _check_domains(self, addresses: Sequence[str], layers: Sequence[Layer], at: Path) -> None:
        for address in addresses:
            domain = address.rpartition("@")[2].lower()
            if self.domains is not None and not any(_covers(one, domain) for one in self.domains):
                allowed = ", ".join(self.domains) or "none"
                told = f"no mail may go to {domain}; {MAIL_DOMAINS} of defaults.yaml allows: {allowed}"
                self.problems.append(_problem(layers, at, told))


def _covers(allowed: str, domain: str) -> bool:
    """Tell whether a domain is allowed: by its name, or as one below `*.name`."""
    return domain.endswith(allowed[1:]) if allowed.startswith("*.") else domain == allowed


def _problem(layers: Sequence[Layer], path: Path, text: str) -> Problem:
    layer, exists = locate(path, layers)
    line = layer.file.line((*layer.start, *exists[len(layer.at) :]))
    return Problem(file=layer.file.shown, line=line, path=(*layer.start, *path[len(layer.at) :]), text=text)
