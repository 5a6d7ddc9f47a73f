"""The batch file as a model: what a person may write, what it means, what is refused.

These classes are the validator, the JSON Schema and the documentation of the YAML at once.
A batch is validated after the inheritance defaults → recipient → batch has been applied (`batch.load`),
so that the model is the *effective* configuration: it is what is frozen into the store at the claim.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    model_validator,
)
from pydantic_core import PydanticCustomError

from leadferry.batch.conditions import Conditions
from leadferry.batch.files import ID_PATTERN, Bundle, DoneMarker, Manifest, OutputFile
from leadferry.batch.routes import route_problems
from leadferry.batch.selection import Select
from leadferry.batch.ways import primary, way_problems, ways
from leadferry.destinations import Destination
from leadferry.destinations.base import Retry
from leadferry.destinations.email import Email
from leadferry.destinations.email.settings import Personal
from leadferry.mapping.fields import OutputField
from leadferry.mapping.rules import Rule
from leadferry.mapping.sources import CHANGE
from leadferry.schedule import Calendar, Schedule, Zone
from leadferry.schedule.ending import Ended, ended
from leadferry.units import Duration


def _known_locale(name: str) -> str:
    if name != "en_US":
        from babel import Locale as BabelLocale
        from babel import UnknownLocaleError

        try:
            BabelLocale.parse(name)
        except (UnknownLocaleError, ValueError):
            raise ValueError("must be a language and a country, such as en_US, de_CH or pt_BR") from None
    return name


Locale = Annotated[str, AfterValidator(_known_locale)]
"""A language and a country as Unicode's locale data knows them, with an underscore."""


def _blame(*at: str | int, text: str) -> PydanticCustomError:
    """Make the error of a check of several keys; `at` is the path, from the model that checks, to the one to correct."""
    return PydanticCustomError("contradiction", "{text}", {"text": text, "at": at})


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Contact(_Model):
    """Whom to call when a delivery to this recipient fails."""

    name: str
    email: str | None = None
    phone: str | None = None
    role: str | None = None


class Recipient(_Model):
    """The buyer: who they are, where they are, what they may get."""

    id: str = Field(pattern=ID_PATTERN, max_length=90)
    name: str
    contacts: list[Contact] = []
    timezone: Zone | None = Field(
        default=None, description="Time zone of the recipient's batches unless they say otherwise."
    )
    locale: Locale = Field(default="en_US", description="Language and country, for names of months and days.")
    allowed_fields: list[str] | None = Field(
        default=None, description="The only lead fields that this recipient may get; all when left out."
    )
    rules: list[Rule] = Field(
        default=[],
        description="Conditions that every lead for this recipient must meet, whatever the batch; no run turns them off.",
    )
    notes: str = Field(
        default="", description="Delivery requirements and preferences; shown on the DAG's page."
    )


class Suspend(_Model):
    """When a destination that fails again and again is left alone; a refused login suspends at once, by itself."""

    after_failures: int | None = Field(
        default=5, ge=1, le=100, description="Failed deliveries in a row; null to try for ever."
    )
    retry_after: Duration | None = Field(
        default=timedelta(hours=1),
        description="After this time the next departure tries the destination again; null to wait for `leadferry resume`.",
    )


class Notify(_Model):
    """Which of our own people hear of what; never the lead's recipient."""

    connection: str = Field(default="smtp", description="Airflow connection of the mail server for notices.")
    failure: list[str] = []
    empty: list[str] = Field(default=[], description="Also told when there was nothing to deliver.")
    caps: list[str] = Field(default=[], description="Told when a cap is nearly or completely used up.")


class Watch(_Model):
    """When somebody must look at a batch; the DAG `leadferry_maintenance` compares it with the lead store."""

    max_pending: int | None = Field(
        default=None, ge=1, description="More leads than this should not wait; null for any number."
    )
    max_age: Duration | None = Field(
        default=None, description="No lead should wait longer than this; null for any time."
    )
    held: Duration | None = Field(
        default=timedelta(hours=4),
        description="A delivery that waited this long for a person is told once more; null for never.",
    )
    keys: Duration = Field(
        default=timedelta(days=30), description="How long before a key expires it is told."
    )


class Move(_Model):
    """Where files go that the archive kept long enough."""

    move: str = Field(
        pattern=r"^(/|[a-z][a-z0-9+.-]*://)",
        description="A folder or the URL of an object store, as `LEADFERRY_ARCHIVE` has it.",
    )
    keep: Duration | None = Field(
        default=None, description="How long they stay there; for ever when left out."
    )


class Retention(_Model):
    """How long rendered files are kept. What stands about them in the lead store stays for good."""

    files: Duration | None = Field(
        default=None, description="How long the archive keeps a file; for ever when left out."
    )
    then: Literal["delete"] | Move = Field(
        default="delete", description="What becomes of it afterwards: `delete`, or `{move: URL}`."
    )


class Batch(_Model):
    """One scheduled delivery: `config/batches/<id>.yaml`, one DAG `batch_<id>`."""

    id: str = Field(
        pattern=ID_PATTERN, max_length=200, description="The file's name; not written in the file."
    )
    name: str = Field(min_length=1, max_length=200)
    description: str = Field(default="", max_length=2000)
    notes: str = Field(default="", description="Anything the operator should know; shown on the DAG's page.")
    recipient: Recipient
    flows: list[str] = Field(min_length=1, description="The flows whose leads this batch delivers.")
    tags: list[Annotated[str, Field(max_length=100)]] = []
    enabled: bool = Field(
        default=True,
        description="Whether it departs by its timetable. A disabled batch goes on collecting leads;"
        " only a test may be delivered by hand.",
    )
    must_test: bool = Field(
        default=False,
        description="Real leads go only after a test delivery of exactly this configuration arrived.",
    )
    timezone: Zone = "UTC"
    schedule: Schedule
    conditions: Conditions = Conditions()
    select: Select = Select()
    empty: Literal["skip", "header_only", "notice", "fail"] = Field(
        default="skip",
        description="With nothing to deliver: skip the departure, deliver a file without leads, mail a notice to `notify.empty`, or fail.",
    )
    when_fields_change: Literal["apply", "notice", "acknowledge"] = Field(
        default="apply",
        description="When the fields differ from those of the last delivery: deliver all the same, also tell"
        " `notify.failure`, or leave the leads in the queue until `leadferry batches acknowledge`.",
    )
    fields: list[OutputField] = Field(min_length=1)
    files: list[OutputFile] = Field(
        default=[], description="The files; may be left out when every destination takes leads one by one."
    )
    bundles: list[Bundle] = Field(
        default=[], description="Zip files that hold several of the files and are sent in their place."
    )
    manifest: Manifest | None = Field(default=None, description="Send a list of the files after them.")
    done_marker: DoneMarker | None = Field(
        default=None, description="Send an empty file after everything else."
    )
    destinations: list[Destination] = Field(min_length=1)
    success: Literal["all", "any", "primary"] = Field(
        default="all",
        description="Which destinations must have everything for the delivery to count as delivered: all, any one,"
        " or the one with `primary: true`. A fallback counts for the destination that it replaces.",
    )
    retry: Retry = Retry()
    suspend: Suspend = Field(
        default=Suspend(), description="When a destination that fails again and again is left alone."
    )
    priority: int = Field(
        default=1, ge=1, le=1000, description="A higher number departs first when slots are scarce."
    )
    claim_lease: Duration = Field(
        default=timedelta(hours=6),
        ge=timedelta(minutes=1),
        description=(
            "How long a delivery that nobody works on keeps its leads before they go back to the queue;"
            " a task that takes longer is ended."
        ),
    )
    notify: Notify = Notify()
    deadline: Duration | None = Field(
        default=timedelta(hours=1),
        description="How long after its time a departure must have arrived; later it is told. null for never.",
    )
    watch: Watch = Field(default=Watch(), description="When somebody must look at this batch.")
    retention: Retention = Field(default=Retention(), description="How long rendered files are kept.")

    @property
    def dag_id(self) -> str:
        """The DAG that this batch becomes."""
        return f"batch_{self.id}"

    @property
    def calendar(self) -> Calendar | None:
        """The calendar of its schedule."""
        return None if self.schedule == "manual" else self.schedule.calendar

    @property
    def departs_at_events(self) -> bool:
        """Whether it also departs for another reason than the time."""
        on_asset = self.schedule != "manual" and self.schedule.on_asset is not None
        return on_asset or self.conditions.depart_early is not None

    def over(self, *, now: datetime) -> Ended | None:
        """Say that it departs no more by itself although it is enabled and has a timetable; None while it does."""
        if not self.enabled or self.departs_at_events:
            return None
        return ended(self.schedule, timezone=self.timezone, now=now, batch_id=self.id)

    @property
    def schedule_zone(self) -> str:
        """The zone in which the times and days of its schedule are meant."""
        return self.timezone if self.schedule == "manual" else self.schedule.timezone or self.timezone

    @property
    def makes_up_for_each(self) -> bool:
        """Whether each departure that was missed is made up for, with its own leads."""
        return self.schedule != "manual" and self.schedule.missed == "each"

    @property
    def built_ahead(self) -> timedelta | None:
        """How long before a departure its files are built; None where that is at the departure."""
        return None if self.schedule == "manual" else self.schedule.generate_before

    @property
    def stores_for_links(self) -> set[str]:
        """Ids of the destinations that hold what mails link to, and get no files of their own."""
        mails = [one for one in self.destinations if isinstance(one, Email) and not one.link_via_gets_files]
        return {one.link_via for one in mails if one.link_via is not None}

    def destination(self, destination_id: str) -> Destination:
        """Return the destination with this id."""
        return next(one for one in self.destinations if one.id == destination_id)

    def retry_of(self, destination_id: str) -> Retry:
        """Return how often and when a destination is tried: the batch's `retry`, changed by its own."""
        own = self.destination(destination_id).retry
        return self.retry if own is None else own.over(self.retry)

    def ways(self) -> dict[str, list[str]]:
        """Return the destinations of each way in the order in which they are tried, by the one that is tried first."""
        return ways(self.destinations)

    def way_of(self, destination_id: str) -> str:
        """Return the first destination of the way that a destination is on."""
        return next(first for first, way in self.ways().items() if destination_id in way)

    @property
    def primary(self) -> str:
        """The destination that `success: primary` asks for."""
        return primary(self.destinations, stores=self.stores_for_links)

    def required_ways(self) -> dict[str, list[str]]:
        """Return the ways without which a delivery cannot be delivered; with `success: any` no single one."""
        ways = self.ways()
        return {"all": ways, "any": {}, "primary": {self.primary: ways[self.primary]}}[self.success]

    @property
    def loose_files(self) -> list[OutputFile]:
        """The files that are sent by themselves, in no bundle."""
        bundled = {file for bundle in self.bundles for file in bundle.files}
        return [file for file in self.files if file.id not in bundled]

    @property
    def files_and_bundles(self) -> list[tuple[str, int, OutputFile | Bundle]]:
        """Whatever has a name and a packing: the key of its list in the batch file, its place there, and itself."""
        files = [("files", index, file) for index, file in enumerate(self.files)]
        return [*files, *(("bundles", index, bundle) for index, bundle in enumerate(self.bundles))]

    def files_for(self, destination_id: str) -> list[OutputFile | Bundle]:
        """Return what goes to this destination: files in the order of the batch file, then bundles."""
        wanted = self.destination(destination_id).files
        sent: list[OutputFile | Bundle] = [*self.loose_files, *self.bundles]
        return [one for one in sent if wanted is None or one.id in wanted]

    @model_validator(mode="after")
    def _ids_are_unique(self) -> Self:
        for what, key, ids in (
            ("files", "id", [file.id for file in self.files]),
            ("files", "name", [file.name for file in self.files]),
            ("bundles", "id", [bundle.id for bundle in self.bundles]),
            ("bundles", "name", [bundle.name for bundle in self.bundles]),
            ("destinations", "id", [destination.id for destination in self.destinations]),
            ("fields", "to", [field.to for field in self.fields]),
        ):
            for index, one in enumerate(ids):
                if one in ids[:index]:
                    raise _blame(what, index, key, text=f"{one!r} stands twice in {what}")
        return self

    @model_validator(mode="after")
    def _destinations_know_their_files(self) -> Self:
        known = {file.id for _, _, file in self.files_and_bundles}
        for index, destination in enumerate(self.destinations):
            for position, wanted in enumerate(destination.files or []):
                if wanted not in known:
                    told = f"there is no file {wanted!r}; known: {', '.join(sorted(known))}"
                    raise _blame("destinations", index, "files", position, text=told)
        return self

    @model_validator(mode="after")
    def _mail_knows_its_files_and_store(self) -> Self:
        stores = {one.id for one in self.destinations}
        for index, mail in enumerate(self.destinations):
            if not isinstance(mail, Email):
                continue
            if mail.link_via is not None and mail.link_via not in stores - {mail.id}:
                others = ", ".join(sorted(stores - {mail.id})) or "none"
                told = f"there is no other destination {mail.link_via!r}; known: {others}"
                raise _blame("destinations", index, "link_via", text=told)
            if mail.link_via is not None and not self.destination(mail.link_via).makes_links:
                told = f"{mail.link_via!r} makes no links that anybody can open; name an object store: s3, gcs, azure"
                raise _blame("destinations", index, "link_via", text=told)
            files = {file.id for file in self.files_for(mail.id)}
            for place, one in enumerate(mail.to):
                for wanted in (one.files or []) if isinstance(one, Personal) else []:
                    if wanted not in files:
                        told = f"there is no file {wanted!r} in this mail; known: {', '.join(sorted(files))}"
                        raise _blame("destinations", index, "to", place, "files", text=told)
        return self

    @model_validator(mode="after")
    def _destinations_get_what_they_take(self) -> Self:
        for index, destination in enumerate(self.destinations):
            if destination.takes == "files" and not self.files:
                raise _blame(
                    "files",
                    text=f"destination {destination.id!r} takes files, but the batch has none; add the key 'files'",
                )
            if destination.takes == "leads" and destination.files is not None:
                told = f"a destination of type {destination.type} takes leads, not files; leave files out"
                raise _blame("destinations", index, "files", text=told)
        return self

    @model_validator(mode="after")
    def _what_tells_of_files_tells_their_names(self) -> Self:
        telling = "manifest" if self.manifest is not None else None
        for index, destination in enumerate(self.destinations):
            checked = any(file.checksum for file in self.files_for(destination.id))
            told = telling or ("checksum" if checked else None)
            if destination.may_rename and told:
                text = f"with suffix a file may get another name than the one that its {told} tells; leave one of them out"
                raise _blame("destinations", index, "on_name_taken", text=text)
        return self

    @model_validator(mode="after")
    def _files_can_go_where_they_should(self) -> Self:
        labels = [field.to for field in self.fields]
        for at, text in route_problems(self.files, self.bundles, self.destinations, labels):
            raise _blame(*at, text=text)
        return self

    @model_validator(mode="after")
    def _destinations_take_the_labels(self) -> Self:
        labels = [field.to for field in self.fields]
        for index, destination in enumerate(self.destinations):
            for problem in destination.problems(labels):
                raise _blame("destinations", index, text=problem)
        return self

    @model_validator(mode="after")
    def _ways_lead_somewhere(self) -> Self:
        stores = self.stores_for_links
        for at, text in way_problems(
            self.loose_files, self.bundles, self.destinations, success=self.success, stores=stores
        ):
            raise _blame(*at, text=text)
        return self

    @model_validator(mode="after")
    def _rules_have_names_of_their_own(self) -> Self:
        known = [rule.name for rule in self.recipient.rules]
        for index, name in enumerate(known):
            if name in known[:index]:
                told = f"two rules have the name {name!r}; a withheld lead names its rule"
                raise _blame("recipient", "rules", index, "name", text=told)
        for index, rule in enumerate(self.select.rules):
            if rule.name in known:
                told = f"the recipient {self.recipient.id!r} has a rule {rule.name!r} already"
                raise _blame("select", "rules", index, "name", text=told)
        return self

    @model_validator(mode="after")
    def _changes_are_known(self) -> Self:
        for index, field in enumerate(self.fields):
            if CHANGE in field.sources and self.select.mode != "changed":
                raise _blame("fields", index, text=f"{CHANGE} is known only with select: {{mode: changed}}")
        return self

    @model_validator(mode="after")
    def _recipient_may_get_the_fields(self) -> Self:
        if self.recipient.allowed_fields is None:
            return self
        allowed = set(self.recipient.allowed_fields)
        for index, field in enumerate(self.fields):
            for source in field.sources:
                if source not in allowed and source != CHANGE:
                    told = f"{source!r} is not among the allowed_fields of recipient {self.recipient.id!r}"
                    raise _blame("fields", index, text=told)
        for index, file in enumerate(self.files):
            if file.segment is not None and file.segment.by not in allowed:
                told = f"{file.segment.by!r}, which file names would tell, is not among the allowed_fields of recipient {self.recipient.id!r}"
                raise _blame("files", index, "segment", "by", text=told)
        for index, destination in enumerate(self.destinations):
            for source in destination.lead_fields:
                if source not in allowed:
                    told = f"{source!r} is not among the allowed_fields of recipient {self.recipient.id!r}"
                    raise _blame("destinations", index, "chart", "field", text=told)
        return self
