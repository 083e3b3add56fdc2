"""Files whose bytes clients send to S3.

Each is a multipart upload with one or more parts. So its parts cannot be exchanged after it is
complete, whereas a presigned PUT of an object could be used again.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from math import ceil
from typing import Any

from kinto_attachment.errors import (
    FileNotFound,
    StorageUnavailable,
    UploadIncomplete,
    WrongLength,
)

from . import ArrivedPart, Partial, PartRequest, check_key
from .s3_errors import error_code, translated
from .s3_open_upload import LAST_PART
from .s3_partial_writer import LARGEST_FILE, MIB
from .s3_partials import S3Partials

# A name of boto3, and the name of the header.
SHA256, SHA256_HEADER = "ChecksumSHA256", "x-amz-checksum-sha256"
# The fields that S3 may list for a part, and then requires to complete the upload.
LISTED = ("ETag", "ChecksumCRC32", "ChecksumCRC32C", "ChecksumCRC64NVME", "ChecksumSHA1", SHA256)


class S3Direct(S3Partials):
    """The part of ``S3Storage`` that lets clients send the bytes.

    A Partial has the ``upload`` of S3, the ``length`` of the file, and the ``part_size``.
    ``sha256`` is the hash that the only part has to have, in Base64, or empty.
    """

    largest_direct = LARGEST_FILE

    def begin_direct(
        self,
        id: str,
        key: str,
        content_type: str,
        *,
        disposition: str = "",
        length: int,
        part_size: int,
        sha256: str = "",
    ) -> Partial:
        self._bucket.check_free(check_key(key))
        headers = self._headers_of_file(id, content_type, disposition)
        part_size = grown(part_size, length)
        checked = b64encode(bytes.fromhex(sha256)).decode() if length <= part_size else ""
        # AWS refuses parts with another kind of checksum than the upload was created with.
        algorithm: dict[str, Any] = {"ChecksumAlgorithm": "SHA256"} if checked else {}
        answer = self._bucket.call("create_multipart_upload", Key=key, **headers, **algorithm)
        details = {
            "headers": headers,
            "upload": answer["UploadId"],
            "length": length,
            "part_size": part_size,
            "sha256": checked,
        }
        return Partial(id, key, 0, details)

    def part_requests(self, partial: Partial, expires: int) -> list[PartRequest]:
        checksum = partial.details["sha256"]
        signed = {SHA256: checksum} if checksum else {}
        headers = {SHA256_HEADER: checksum} if checksum else {}
        client, target = self._bucket.client(), {"Bucket": self._bucket.name, **target_of(partial)}
        with translated():
            return [
                PartRequest(
                    number,
                    offset,
                    size,
                    client.generate_presigned_url(
                        "upload_part",
                        Params={**target, "PartNumber": number, "ContentLength": size, **signed},
                        ExpiresIn=expires,
                    ),
                    {**headers},
                )
                for number, offset, size in layout(partial)
            ]

    def arrived_parts(self, partial: Partial) -> dict[int, ArrivedPart]:
        return {
            number: ArrivedPart(found["Size"], found["LastModified"])
            for number, found in self._listed(partial).items()
        }

    def check_parts(self, partial: Partial) -> None:
        check(partial, self._listed(partial))

    def finish_direct(self, partial: Partial) -> str:
        partial = replace(partial, size=partial.details["length"])
        vouched = ""
        if not self._is_finished(partial):
            with self._unless_finished(partial):
                vouched = self._complete_direct(partial)
        if not partial.size:  # The object that claims the key is the whole file.
            self._abort(partial.key, partial.details["upload"])
        return vouched

    def has_hash(self, key: str, digest: str) -> bool:
        """Whether S3 has this hash, as for files that were sent with it in one part."""
        found = self._bucket.head(check_key(key), ChecksumMode="ENABLED")
        whole = bytes.fromhex(digest)
        # AWS, "Checking object integrity": that of a multipart upload is one of its parts' hashes.
        of_parts = b64encode(sha256(whole).digest()).decode() + "-1"
        return found.get(SHA256) in (b64encode(whole).decode(), of_parts)

    def _complete_direct(self, partial: Partial) -> str:
        """Complete the upload from S3's own list of its parts; the SHA-256 that it lists."""
        listed = self._listed(partial)
        check(partial, listed)
        parts = [as_completed(number, listed[number]) for number in sorted(listed)]
        vouched = str(parts[0].get(SHA256, "")) if len(parts) == 1 else ""
        if checksum := partial.details["sha256"]:
            # Some servers require checksums but do not list them. The URL has signed this one.
            parts[0].setdefault(SHA256, checksum)
        self._bucket.call(
            "complete_multipart_upload",
            **target_of(partial),
            **self._claim_key(partial),
            MultipartUpload={"Parts": parts},
        )
        return b64decode(vouched).hex()

    def _listed(self, partial: Partial) -> dict[int, dict[str, Any]]:
        """The parts as S3 lists them, by their numbers.

        SeaweedFS lists a part that was sent twice, with different bytes, twice.
        """
        found: dict[int, dict[str, Any]] = {}
        try:
            for page in self._bucket.pages("list_parts", **target_of(partial)):
                for each in page.get("Parts", ()):
                    number = each["PartNumber"]
                    if number in found and found[number]["LastModified"] > each["LastModified"]:
                        continue
                    found[number] = each
        except StorageUnavailable as error:
            if error_code(error) != "NoSuchUpload":
                raise
            raise FileNotFound() from error
        return found


def grown(part_size: int, length: int) -> int:
    """The size of parts, so that their number does not exceed S3's limit."""
    least = ceil(length / LAST_PART)
    return part_size if least <= part_size else ceil(least / MIB) * MIB


def layout(partial: Partial) -> Iterator[tuple[int, int, int]]:
    """Number, offset and size of each part; an empty file has an empty one."""
    length, part_size = partial.details["length"], partial.details["part_size"]
    for number, offset in enumerate(range(0, length or 1, part_size), 1):
        yield number, offset, min(part_size, length - offset)


def target_of(partial: Partial) -> dict[str, Any]:
    return {"Key": partial.key, "UploadId": partial.details["upload"]}


def check(partial: Partial, listed: dict[int, dict[str, Any]]) -> None:
    """:raises UploadIncomplete, WrongLength: these are not the parts of the file."""
    wanted = {number: size for number, _, size in layout(partial)}
    if missing := len(wanted.keys() - listed.keys()):
        raise UploadIncomplete(f"{UploadIncomplete.message} Parts that are missing: {missing}.")
    if {number: found["Size"] for number, found in listed.items()} != wanted:
        raise WrongLength("The bytes that have arrived are more or fewer than the file has.")


def as_completed(number: int, found: dict[str, Any]) -> dict[str, Any]:
    """A part in the form for the call that completes an upload."""
    return {"PartNumber": number, **{name: found[name] for name in LISTED if found.get(name)}}
