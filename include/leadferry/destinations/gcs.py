"""Deliver to Google Cloud Storage.

One upload makes an object appear complete or not at all, and `ifGenerationMatch=0` makes it create and never replace.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import Field

from leadferry.destinations.faults.google import google_faults
from leadferry.destinations.objects import ObjectSession, ObjectStore, Standing, Stream, address
from leadferry.destinations.parcel import OutgoingFile, Parcel, digest
from leadferry.errors import MissingExtraError, PermanentDeliveryError

GcsClient = Any
"""`google.cloud.storage.Client`; the library has no types."""

_CHUNK = 8 << 20
"""Bytes of a request, and so of memory."""

_SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"


class Gcs(ObjectStore):
    """A prefix in a bucket of Google Cloud Storage."""

    connection_kind: ClassVar[str] = "google"
    largest: ClassVar[int] = 5 * 1024**4

    type: Literal["gcs"] = "gcs"
    connection: str = Field(
        default="google_cloud_default",
        min_length=1,
        description="Airflow connection of type google_cloud_platform.",
    )
    bucket: str = Field(min_length=3, max_length=222, description="The bucket; must exist.")
    storage_class: Literal["STANDARD", "NEARLINE", "COLDLINE", "ARCHIVE"] | None = Field(
        default=None, description="The bucket's when left out."
    )
    acl: (
        Literal[
            "authenticatedRead",
            "bucketOwnerFullControl",
            "bucketOwnerRead",
            "private",
            "projectPrivate",
            "publicRead",
        ]
        | None
    ) = Field(
        default=None,
        description="Predefined access control list; not for buckets with uniform bucket-level access.",
    )
    kms_key: str | None = Field(
        default=None,
        pattern=r"^projects/[^/]+/locations/[^/]+/keyRings/[^/]+/cryptoKeys/[^/]+$",
        description="Cloud KMS key to encrypt with; the bucket's own setting when left out.",
    )

    @property
    def where(self) -> str:
        """The connection, the bucket and the prefix, as written."""
        return f"{self.via}, gs://{self.bucket}/{self.prefix}"

    def endpoint(self) -> tuple[str, int] | None:
        """See `DestinationBase.endpoint`."""
        with self._connected() as client:
            return address(client.api_endpoint)

    @contextmanager
    def open(self) -> Iterator[GcsSession]:
        """Make the client by the Airflow connection; whether the credentials are good shows at the first request."""
        with self._connected() as client:
            yield GcsSession(self, client)

    @contextmanager
    def _connected(self) -> Iterator[GcsClient]:
        _require()
        with google_faults(self.via):
            client = _client(self.connection)
        try:
            yield client
        finally:
            client.close()


def _require() -> None:
    try:
        import google.cloud.storage  # noqa: F401  (is it there?)
    except ImportError:
        raise MissingExtraError(
            "The destination gcs needs the package google-cloud-storage",
            hint='Install it where the workers run: pip install "leadferry[gcs]"',
        ) from None


def _client(connection: str) -> GcsClient:
    from airflow.sdk import BaseHook
    from google.cloud import storage

    extra = BaseHook.get_connection(connection).extra_dejson
    # Airflow once wrote the fields of this connection with a long prefix, and still reads them.
    extra = {name.removeprefix("extra__google_cloud_platform__"): value for name, value in extra.items()}
    endpoint = extra.get("api_endpoint")
    # Else each client asks for its bucket too, in a thread and for two minutes where none answers: for traces of OpenTelemetry.
    os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")
    return storage.Client(
        project=extra.get("project") or extra.get("project_id"),
        credentials=_credentials(extra),
        client_options={"api_endpoint": endpoint} if endpoint else None,
    )


def _credentials(extra: Mapping[str, Any]) -> Any:
    """Read the fields that Airflow's Google provider gives this connection, in its order of precedence."""
    import google.auth
    from google.auth import impersonated_credentials
    from google.auth.credentials import AnonymousCredentials
    from google.oauth2 import service_account

    if extra.get("is_anonymous"):
        return AnonymousCredentials()
    if key := extra.get("keyfile_dict"):
        info = json.loads(key) if isinstance(key, str) else key
        found = service_account.Credentials.from_service_account_info(info, scopes=[_SCOPE])
    elif path := extra.get("key_path"):
        found = service_account.Credentials.from_service_account_file(path, scopes=[_SCOPE])
    elif path := extra.get("credential_config_file"):
        found, _ = google.auth.load_credentials_from_file(path, scopes=[_SCOPE])
    else:
        found, _ = google.auth.default(scopes=[_SCOPE])
    chain = extra.get("impersonation_chain") or []
    accounts = [one.strip() for one in chain.split(",")] if isinstance(chain, str) else list(chain)
    if not accounts:
        return found
    return impersonated_credentials.Credentials(
        source_credentials=found,
        target_principal=accounts[-1],
        delegates=accounts[:-1],
        target_scopes=[_SCOPE],
    )


@dataclass(frozen=True, kw_only=True)
class _Prints:
    """What Google says about the bytes of a file, computed from the file; Base64."""

    crc32c: str
    md5: str


def _prints(file: OutgoingFile) -> _Prints:
    import google_crc32c

    md5, crc32c = hashlib.md5(usedforsecurity=False), google_crc32c.Checksum()
    for block in file.blocks():
        md5.update(block)
        crc32c.update(block)
    return _Prints(
        crc32c=base64.b64encode(crc32c.digest()).decode(), md5=base64.b64encode(md5.digest()).decode()
    )


class GcsSession(ObjectSession[Gcs, _Prints]):
    """A client for one bucket."""

    def __init__(self, destination: Gcs, client: GcsClient) -> None:
        super().__init__(destination)
        self._client = client
        self._bucket = client.bucket(destination.bucket)
        # Trying again is Airflow's part.
        self._once = {"timeout": destination.timeout, "retry": None}

    def _translated(self, where: str) -> AbstractContextManager[None]:
        return google_faults(where)

    def _url(self, key: str) -> str:
        return f"gs://{self._destination.bucket}/{key}"

    def _region(self) -> str:
        found = self._client.get_bucket(self._destination.bucket, **self._once)
        return str(found.location).lower()

    def _look(self, key: str) -> Standing | None:
        blob = self._bucket.get_blob(key, **self._once)
        if blob is None:
            return None
        details = {"generation": blob.generation, "etag": blob.etag, "crc32c": blob.crc32c}
        return Standing(size=blob.size, details=details, answer=blob)

    def _same(self, key: str, file: OutgoingFile, standing: Standing) -> str | None:  # noqa: ARG002  (the blob knows its key)
        blob, prints = standing.answer, self._prints(file)
        if blob.crc32c != prints.crc32c:
            return None
        if blob.md5_hash is not None:
            return "CRC32C and MD5 of the store" if blob.md5_hash == prints.md5 else None
        # Composed objects have no MD5, and 32 bits alone prove too little.
        with blob.open("rb", chunk_size=_CHUNK, **self._once) as body:
            return "read back" if digest(body) == file.sha256 else None

    def _computed(self, file: OutgoingFile) -> _Prints:
        return _prints(file)

    def _put(self, key: str, parcel: Parcel) -> Mapping[str, Any]:
        wanted, file = self._destination, parcel.file
        blob = self._bucket.blob(key, chunk_size=_CHUNK, kms_key_name=wanted.kms_key)
        blob.metadata = wanted.metadata_for(parcel)
        if wanted.storage_class:
            blob.storage_class = wanted.storage_class
        blob.upload_from_file(
            Stream(lambda: wanted.blocks(file), size=file.size),
            size=file.size,
            content_type=file.media_type,
            predefined_acl=wanted.acl,
            if_generation_match=None if self._replaces else 0,
            checksum="crc32c",
            crc32c_checksum_value=self._prints(file).crc32c,
            **self._once,
        )
        return {"generation": blob.generation, "etag": blob.etag, "crc32c": blob.crc32c}

    def _delete(self, key: str, standing: Standing) -> None:  # noqa: ARG002  (the blob knows its key)
        standing.answer.delete(if_generation_match=standing.answer.generation, **self._once)

    def _sign(self, key: str, *, expires: timedelta) -> str:
        from google.auth.credentials import Signing

        if not isinstance(self._client._credentials, Signing):  # noqa: SLF001  (the library offers no other way to ask)
            raise PermanentDeliveryError(
                f"{self._where(key)}: these credentials have no key to sign a link with",
                hint="Use the key of a service account, or impersonation of one, in the Airflow connection",
            )
        parts = urlsplit(self._client.api_endpoint)
        return str(
            self._bucket.blob(key).generate_signed_url(
                version="v4",
                expiration=expires,
                api_access_endpoint=f"{parts.scheme}://{parts.netloc}",
            )
        )
