"""Deliver to Azure Blob Storage.

One `Put Blob`, or the commit of a list of blocks, makes a blob appear complete or not at all, and
`If-None-Match: *` makes it create and never replace.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Literal
from urllib.parse import parse_qs

from pydantic import Field

from leadferry.destinations.faults.azure import azure_faults
from leadferry.destinations.objects import (
    ObjectSession,
    ObjectStore,
    Standing,
    Stream,
    TagKey,
    address,
    rendered_tags,
)
from leadferry.destinations.parcel import OutgoingFile, Parcel
from leadferry.errors import (
    ExpiredCredentialsError,
    MissingExtraError,
    PermanentDeliveryError,
    RegionError,
)
from leadferry.templates import Template

AzureService = Any
"""`azure.storage.blob.BlobServiceClient`."""

_BLOCK = 8 << 20
"""Bytes of a request, and so of memory, unless the file would need more blocks than there may be."""

_MOST_BLOCKS = 50_000


class Azure(ObjectStore):
    """A prefix in a container of Azure Blob Storage."""

    connection_kind: ClassVar[str] = "wasb"
    largest: ClassVar[int] = _MOST_BLOCKS * 4000 * 1024**2

    type: Literal["azure"] = "azure"
    connection: str = Field(
        default="wasb_default", min_length=1, description="Airflow connection of type wasb."
    )
    container: str = Field(min_length=3, max_length=63, description="The container; must exist.")
    tier: Literal["Hot", "Cool", "Cold"] | None = Field(
        default=None, description="Access tier of the blob; the account's when left out."
    )
    tags: dict[TagKey, Template] = Field(
        default_factory=dict, max_length=10, description="Index tags of the blob; the values are templates."
    )
    encryption_scope: str | None = Field(
        default=None, min_length=3, description="Encryption scope of the account; its default when left out."
    )

    @property
    def where(self) -> str:
        """The connection, the container and the prefix, as written."""
        return f"{self.via}, {self.container}/{self.prefix}"

    def endpoint(self) -> tuple[str, int] | None:
        """See `DestinationBase.endpoint`."""
        with self._connected() as (service, _):
            return address(service.url)

    @contextmanager
    def open(self) -> Iterator[AzureSession]:
        """Make the client by the Airflow connection; whether the credentials are good shows at the first request."""
        with self._connected() as (service, region):
            yield AzureSession(self, service, region=region)

    @contextmanager
    def _connected(self) -> Iterator[tuple[AzureService, str | None]]:
        _require()
        with azure_faults(self.via):
            service, region = _service(self.connection, timeout=self.timeout)
        with service:
            yield service, region


def _require() -> None:
    try:
        import azure.storage.blob  # noqa: F401  (is it there?)
    except ImportError:
        raise MissingExtraError(
            "The destination azure needs the package azure-storage-blob",
            hint='Install it where the workers run: pip install "leadferry[azure]"',
        ) from None


def _service(connection: str, *, timeout: float) -> tuple[AzureService, str | None]:
    """Return the client and the region that the connection says the account is in."""
    from airflow.sdk import BaseHook
    from azure.storage.blob import BlobServiceClient

    found = BaseHook.get_connection(connection)
    extra = {name.removeprefix("extra__wasb__"): value for name, value in found.extra_dejson.items()}
    # Trying again is Airflow's part.
    options = {"retry_total": 0, "connection_timeout": timeout, "read_timeout": timeout}
    if text := extra.get("connection_string"):
        return BlobServiceClient.from_connection_string(text, **options), extra.get("region")
    url = found.host or f"https://{found.login}.blob.core.windows.net"
    url = url if "://" in url else f"https://{url}"
    return BlobServiceClient(url, credential=_credential(found, extra), **options), extra.get("region")


def _credential(found: Any, extra: Mapping[str, Any]) -> Any:
    """Read the fields that Airflow's Azure provider gives this connection, in its order of precedence."""
    if key := extra.get("shared_access_key"):
        return key
    if extra.get("tenant_id"):
        from azure.identity import ClientSecretCredential

        return ClientSecretCredential(extra["tenant_id"], found.login, found.password)
    if token := extra.get("sas_token"):
        return _unexpired(token.partition("?")[2] or token)
    if found.password:
        return {"account_name": found.login, "account_key": found.password}
    from azure.identity import DefaultAzureCredential

    return DefaultAzureCredential(managed_identity_client_id=extra.get("managed_identity_client_id"))


def _unexpired(token: str) -> str:
    """Return a SAS token; Azure's answers to look-ups do not tell one out of its time from a wrong one."""
    until = parse_qs(token).get("se", [""])[0]
    with suppress(ValueError):
        end = datetime.fromisoformat(until)
        if (end if end.tzinfo else end.replace(tzinfo=UTC)) < datetime.now(UTC):
            raise ExpiredCredentialsError(f"The connection's SAS token has expired at {end.isoformat()}")
    return token


class AzureSession(ObjectSession[Azure, bytes]):
    """A client for one container."""

    def __init__(self, destination: Azure, service: AzureService, *, region: str | None) -> None:
        super().__init__(destination)
        self._service = service
        self._said_region = region

    def _translated(self, where: str) -> AbstractContextManager[None]:
        return azure_faults(where)

    def _url(self, key: str) -> str:
        return f"{self._service.url.partition('?')[0].rstrip('/')}/{self._destination.container}/{key}"

    def _region(self) -> str:
        if self._said_region:
            return self._said_region
        raise RegionError(
            f"{self._destination.where}: Azure does not tell a login in which region an account lies;"
            " nothing was uploaded",
            hint="Write the account's region into the connection's extra as `region`, such as westeurope",
        )

    def _blob(self, key: str) -> Any:
        return self._service.get_blob_client(self._destination.container, key)

    def _look(self, key: str) -> Standing | None:
        from azure.core.exceptions import ResourceNotFoundError

        try:
            found = self._blob(key).get_blob_properties()
        except ResourceNotFoundError:
            # A missing container looks the same here; the upload tells them apart.
            return None
        details = {"etag": found.etag, "version": found.version_id}
        return Standing(size=found.size, details=details, answer=found)

    def _same(self, key: str, file: OutgoingFile, standing: Standing) -> str | None:
        """Compare by the MD5 where the blob is an upload of ours, whose every request the store has checked by MD5."""
        found = standing.answer
        stored = bytes(found.content_settings.content_md5 or b"")
        # Whoever commits blocks may write any MD5 beside them; reading back settles what others put there.
        if stored == self._prints(file) and found.metadata.get("sha256") == file.sha256:
            return "MD5 of the store"
        body = self._blob(key).download_blob(max_concurrency=1)
        hashed = hashlib.sha256()
        for chunk in body.chunks():
            hashed.update(chunk)
        return "read back" if hashed.hexdigest() == file.sha256 else None

    def _computed(self, file: OutgoingFile) -> bytes:
        """Return the MD5."""
        md5 = hashlib.md5(usedforsecurity=False)
        for block in file.blocks():
            md5.update(block)
        return md5.digest()

    def _put(self, key: str, parcel: Parcel) -> Mapping[str, Any]:
        file = parcel.file
        stream = Stream(lambda: self._destination.blocks(file), size=file.size)
        upload = self._put_once if file.size <= _BLOCK else self._put_in_blocks
        answer = upload(self._blob(key), parcel, stream)
        return {"etag": answer.get("etag"), "version": answer.get("version_id")}

    def _put_once(self, blob: Any, parcel: Parcel, stream: Stream) -> Mapping[str, Any]:
        return dict(
            blob.upload_blob(
                stream.read(),
                length=parcel.file.size,
                overwrite=self._replaces,
                validate_content=True,
                **self._asked(parcel),
            )
        )

    def _put_in_blocks(self, blob: Any, parcel: Parcel, stream: Stream) -> Mapping[str, Any]:
        from azure.core import MatchConditions
        from azure.storage.blob import BlobBlock

        size = max(_BLOCK, math.ceil(parcel.file.size / _MOST_BLOCKS))
        blocks: list[Any] = []
        while data := stream.read(size):
            # Others may be staging blocks for the same name: ids that only this try uses keep them apart.
            # Azure wants all ids of a blob to be of one length, staged ones too: this is that of Microsoft's library.
            name = f"{parcel.mark}.{parcel.attempt:014}.{len(blocks):014}"
            blob.stage_block(name, data, length=len(data), validate_content=True)
            blocks.append(BlobBlock(block_id=name))
        condition = {} if self._replaces else {"match_condition": MatchConditions.IfMissing}
        return dict(blob.commit_block_list(blocks, **condition, **self._asked(parcel)))

    def _asked(self, parcel: Parcel) -> dict[str, Any]:
        """Return what the blob should be, in the parameters of `Put Blob` and `Put Block List`."""
        from azure.storage.blob import ContentSettings, StandardBlobTier

        wanted = self._destination
        md5 = bytearray(self._prints(parcel.file))
        chosen = {
            "metadata": wanted.metadata_for(parcel),
            "tags": rendered_tags(wanted.tags, parcel),
            "standard_blob_tier": StandardBlobTier(wanted.tier) if wanted.tier else None,
            "encryption_scope": wanted.encryption_scope,
            "content_settings": ContentSettings(content_type=parcel.file.media_type, content_md5=md5),
        }
        return {name: value for name, value in chosen.items() if value}

    def _delete(self, key: str, standing: Standing) -> None:
        from azure.core import MatchConditions

        unchanged = MatchConditions.IfNotModified
        self._blob(key).delete_blob(etag=standing.answer.etag, match_condition=unchanged)

    def _sign(self, key: str, *, expires: timedelta) -> str:
        from azure.storage.blob import BlobSasPermissions, generate_blob_sas

        until = datetime.now(UTC) + expires
        signature = generate_blob_sas(
            self._service.account_name,
            self._destination.container,
            key,
            permission=BlobSasPermissions(read=True),
            expiry=until,
            **self._signer(key, until=until),
        )
        return f"{self._blob(key).url.partition('?')[0]}?{signature}"

    def _signer(self, key: str, *, until: datetime) -> dict[str, Any]:
        """Return what signs a link: the account's key, or a key that Azure lends to a login of Entra ID."""
        credential = self._service.credential
        if account_key := getattr(credential, "account_key", None):
            return {"account_key": account_key}
        if hasattr(credential, "get_token"):
            # A few minutes earlier, because clocks differ.
            begin = datetime.now(UTC) - timedelta(minutes=5)
            return {"user_delegation_key": self._service.get_user_delegation_key(begin, until)}
        raise PermanentDeliveryError(
            f"{self._where(key)}: a SAS token cannot sign a link",
            hint="Use the account's key or a login of Entra ID in the Airflow connection",
        )
