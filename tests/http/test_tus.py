"""Each row tests a sentence of https://tus.io/protocols/resumable-upload, or of our docs."""

from __future__ import annotations

import base64
import hashlib
import io
from typing import Any

import pytest
from hypothesis import given, strategies as st

from kinto_attachment.errors import (
    AttachmentError,
    Errno,
    InvalidBody,
    MethodNotAllowed,
    TakenOver,
    TooLarge,
    UploadGone,
    UploadNotFound,
    WrongChecksum,
    WrongOffset,
)
from kinto_attachment.files.forms import json_object
from kinto_attachment.http.streams import HashingReader
from kinto_attachment.http.tus import MAX_METADATA, Tus, parse_metadata
from kinto_attachment.http.upload_steps import (
    Append,
    Attached,
    Cancel,
    Create,
    Head,
    Inspect,
    Limits,
    Progress,
    Step,
)

TUS = Tus(json_object)
VERSION = {"Tus-Resumable": "1.0.0"}
CONTENT = {"Content-Type": "application/offset+octet-stream"}
EXPIRES = 1_403_712_000_000  # The date in the protocol's example.
EXPIRES_DATE = "Wed, 25 Jun 2014 16:00:00 GMT"
ATTACHED = Attached(201, '"1700000000000"', "Tue, 14 Nov 2023 22:13:20 GMT", {"size": 100}, "5f")


def head(method: str, *, version: str | None = "1.0.0", **headers: object) -> Head:
    """The head of a request; of an upload, unless it is a POST without another method."""
    named = {name.replace("_", "-"): str(value) for name, value in headers.items()}
    if version is not None:
        named["Tus-Resumable"] = version
    return Head(method, named, of_upload=method != "POST")


def patch(**headers: object) -> Head:
    given = {"Upload_Offset": 0, "Content_Length": 3, "Content_Type": CONTENT["Content-Type"]}
    return head("PATCH", **{**given, **headers})


def encoded(value: str | bytes) -> str:
    raw = value.encode("utf-8") if isinstance(value, str) else value
    return base64.b64encode(raw).decode("ascii")


def progress(**fields: Any) -> Progress:
    defaults = {"state": "open", "offset": 70, "length": 100, "expires": EXPIRES}
    return Progress("/v1/u", "/v1/r", **{**defaults, **fields})


def refusal_of(asked: Head) -> AttachmentError:
    with pytest.raises(AttachmentError) as raised:
        TUS.read(asked)
    return raised.value


class TestVersions:
    @pytest.mark.parametrize("version", [None, "", "0.2.2", "1.0.1", "1.0.0, 1.0.0", "2.0.0", "x"])
    @pytest.mark.parametrize("method", ["POST", "HEAD", "PATCH"])
    def test_others_are_refused_and_told_which_there_are(
        self, method: str, version: str | None
    ) -> None:
        asked = head(method, version=version)
        error = refusal_of(asked)
        assert (error.status, error.errno) == (412, Errno.MODIFIED_MEANWHILE)
        answer = TUS.refuse(asked, error, {"code": 412}, None, Limits())
        assert answer.status == 412
        assert answer.headers["Tus-Version"] == "1.0.0"
        assert answer.headers["Tus-Resumable"] == "1.0.0"

    def test_only_other_versions_are_told_which_there_are(self) -> None:
        answer = TUS.refuse(head("PATCH"), Exception(), {"code": 412}, None, Limits())
        assert "Tus-Version" not in answer.headers

    def test_cancelling_needs_no_version(self) -> None:
        assert TUS.read(head("DELETE", version=None)) == Cancel()
        assert refusal_of(head("DELETE", version="2.0.0")).status == 412

    @pytest.mark.parametrize("version", ["1.0.0", "0.2.2", ""])
    def test_all_are_recognized(self, version: str) -> None:
        assert TUS.recognizes(head("POST", version=version))
        assert TUS.recognizes(Head("POST", {"tus-resumable": version}, of_upload=False))

    def test_other_requests_are_not(self) -> None:
        assert not TUS.recognizes(head("POST", version=None, Upload_Complete="?0"))


class TestMethods:
    @pytest.mark.parametrize(
        ("method", "step"),
        [
            ("PATCH", Append(0)),
            ("HEAD", Inspect()),
            ("DELETE", Cancel()),
            ("patch", Append(0)),
            ("delete", Cancel()),
        ],
    )
    def test_x_http_method_override_replaces_post(self, method: str, step: Step) -> None:
        headers = {**patch().headers, "X-HTTP-Method-Override": method}
        assert TUS.read(Head("POST", headers, of_upload=True)) == step

    def test_it_does_not_make_other_methods_unsafe(self) -> None:
        assert TUS.read(head("HEAD", X_HTTP_Method_Override="DELETE")) == Inspect()

    @pytest.mark.parametrize("method", ["GET", "PUT", "POST", "TRACE", "X"])
    def test_methods_that_an_upload_does_not_have(self, method: str) -> None:
        asked = Head(method, VERSION, of_upload=True)
        error = refusal_of(asked)
        assert (error.status, error.errno) == (405, Errno.METHOD_NOT_ALLOWED)
        answer = TUS.refuse(asked, error, {"code": 405}, None, Limits())
        assert answer.headers["Allow"] == "DELETE, HEAD, OPTIONS, PATCH"

    @pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE"])
    def test_methods_that_creation_does_not_have(self, method: str) -> None:
        error = refusal_of(Head(method, VERSION, of_upload=False))
        assert isinstance(error, MethodNotAllowed)
        assert error.allowed == "OPTIONS, POST"


class TestCreation:
    def test_the_example(self) -> None:
        asked = head(
            "POST",
            Content_Length=0,
            Upload_Length=100,
            Upload_Metadata="filename d29ybGRfZG9taW5hdGlvbl9wbGFuLnBkZg==,is_confidential",
        )
        step = TUS.read(asked)
        assert step == Create(
            length=100,
            filename="world_domination_plan.pdf",
            notes="filename d29ybGRfZG9taW5hdGlvbl9wbGFuLnBkZg==,is_confidential",
        )
        answer = TUS.answer(step, progress(offset=0), Limits())
        assert (answer.status, answer.json) == (201, None)
        assert answer.headers == {
            "Location": "/v1/u",
            "Tus-Resumable": "1.0.0",
            "Upload-Offset": "0",
            "Upload-Expires": EXPIRES_DATE,
            "Cache-Control": "no-store",
        }

    def test_with_upload(self) -> None:
        asked = head("POST", Content_Length=5, Upload_Length=100, **under(CONTENT))
        step = TUS.read(asked)
        assert step == Create(length=100, has_content=True)
        assert TUS.answer(step, progress(offset=5), Limits()).headers["Upload-Offset"] == "5"

    def test_with_upload_of_an_unknown_length(self) -> None:
        chunked = {**under(CONTENT), "Transfer_Encoding": "chunked"}
        assert TUS.read(head("POST", Upload_Length=9, **chunked)) == Create(9, has_content=True)

    def test_deferred_length(self) -> None:
        step = TUS.read(head("POST", Upload_Defer_Length=1))
        assert step == Create(length=None)

    def test_an_empty_file_is_there_at_once(self) -> None:
        step = TUS.read(head("POST", Upload_Length="000"))
        assert step == Create(length=0, complete=True)
        done = progress(state="done", offset=0, length=0, attached=ATTACHED)
        answer = TUS.answer(step, done, Limits())
        assert (answer.status, answer.headers["Upload-Offset"]) == (201, "0")
        assert answer.headers["Content-Location"] == "/v1/r/attachment"
        assert "Upload-Expires" not in answer.headers

    @pytest.mark.parametrize(
        ("headers", "status"),
        [
            ({}, 400),
            ({"Upload-Length": "1", "Upload-Defer-Length": "1"}, 400),
            ({"Upload-Defer-Length": "0"}, 400),
            ({"Upload-Defer-Length": "2"}, 400),
            ({"Upload-Length": "1", "Upload-Defer-Length": "0"}, 400),
            ({"Upload-Length": ""}, 400),
            ({"Upload-Length": "-1"}, 400),
            ({"Upload-Length": "+1"}, 400),
            ({"Upload-Length": "1.0"}, 400),
            ({"Upload-Length": "1e3"}, 400),
            ({"Upload-Length": "0x10"}, 400),
            ({"Upload-Length": "1_000"}, 400),
            ({"Upload-Length": "1 0"}, 400),
            ({"Upload-Length": "5,5"}, 400),
            ({"Upload-Length": "٣"}, 400),
            ({"Upload-Length": str(2**63)}, 413),
            ({"Upload-Length": "9" * 5000}, 413),
            ({"Upload-Length": "1", "Upload-Concat": "partial"}, 400),
            ({"Upload-Concat": "final;/files/a /files/b"}, 400),
            ({"Upload-Length": "4", "Content-Length": "5", **CONTENT}, 413),
            ({"Upload-Length": "9", "Content-Length": "5"}, 415),
            ({"Upload-Length": "9", "Content-Length": "5", "Content-Type": "text/plain"}, 415),
            ({"Upload-Length": "9", "Transfer-Encoding": "chunked"}, 415),
            (
                {
                    "Upload-Length": "9",
                    "Content-Length": "5",
                    "Content-Encoding": "gzip",
                    **CONTENT,
                },
                415,
            ),
            ({"Upload-Length": "9", "Repr-Digest": "x"}, 400),
        ],
    )
    def test_refused(self, headers: dict[str, str], status: int) -> None:
        assert refusal_of(Head("POST", {**VERSION, **headers}, of_upload=False)).status == status

    @pytest.mark.parametrize(
        ("value", "length"), [(str(2**63 - 1), 2**63 - 1), ("0007", 7), ("0" * 5000 + "7", 7)]
    )
    def test_lengths_at_the_limits(self, value: str, length: int) -> None:
        assert TUS.read(head("POST", Upload_Length=value)) == Create(length=length)

    def test_digests(self) -> None:
        sha = hashlib.sha256(b"abc").digest()
        field = f"sha-256=:{encoded(sha)}:"
        step = TUS.read(
            head(
                "POST",
                **under(CONTENT),
                Content_Length=3,
                Upload_Length=3,
                Upload_Checksum=f"sha256 {encoded(sha)}",
                Content_Digest=field,
                Repr_Digest=field,
            )
        )
        assert isinstance(step, Create)
        claimed = [(each.header, each.digest) for each in step.claims.claims]
        assert claimed == [("Upload-Checksum", sha), ("Content-Digest", sha)]
        assert [each.header for each in step.file_claims.claims] == ["Repr-Digest"]


def under(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("-", "_"): value for name, value in headers.items()}


class TestMetadata:
    def create(self, metadata: str) -> Create:
        step = TUS.read(head("POST", Upload_Length=1, Upload_Metadata=metadata))
        assert isinstance(step, Create)
        return step

    def test_all_that_are_known(self) -> None:
        header = ",".join(
            [
                f"filename {encoded('тест.txt')}",
                f"filetype {encoded('text/plain')}",
                "data " + encoded('{"a": 1}'),
                "permissions " + encoded('{"read": ["system.Everyone"]}'),
                f"relativePath {encoded('a/b')}",
                "empty ",
                "empty-too",
            ]
        )
        assert self.create(header) == Create(
            length=1,
            filename="тест.txt",
            mimetype="text/plain",
            data={"a": 1},
            permissions={"read": ["system.Everyone"]},
            notes=header,
        )

    @pytest.mark.parametrize("header", ["", "other eA==", "filename,filetype"])
    def test_none_of_them(self, header: str) -> None:
        assert self.create(header) == Create(length=1, notes=header)

    def test_spaces_after_the_commas(self) -> None:
        assert parse_metadata("a eA==, b eQ==") == {"a": b"x", "b": b"y"}

    def test_other_keys_may_have_any_bytes(self) -> None:
        assert parse_metadata(f"x {encoded(bytes(range(256)))}") == {"x": bytes(range(256))}

    @pytest.mark.parametrize(
        "header",
        [
            "filename YQ==,filename YQ==",
            "x,x",
            ",",
            "a eA==,",
            ",a eA==",
            "a eA==,,b eA==",
            "a  eA==",
            "a eA== eA==",
            "a\teA==",
            "a eA",
            "a eA=",
            "a e",
            "a =",
            "a e-_A",
            "a eA==\x00",
            "a eA==\r\nSet-Cookie: x",
            "é eA==",
            f"filename {encoded(bytes([255]))}",
            f"filetype {encoded(bytes([0xC3]))}",
            f"data {encoded(bytes([255]))}",
            f"data {encoded('[]')}",
            f"data {encoded('null')}",
            f"data {encoded('{')}",
            "data",
            f"permissions {encoded('1')}",
            "data " + encoded('{"a": NaN}'),
            "x " + "A" * MAX_METADATA,
        ],
    )
    def test_malformed(self, header: str) -> None:
        error = refusal_of(head("POST", Upload_Length=1, Upload_Metadata=header))
        assert (error.status, error.errno) == (400, Errno.INVALID_PARAMETERS)

    def test_the_largest(self) -> None:
        value = encoded(bytes(3 * 1023))
        assert len(f"abc {value}") == MAX_METADATA
        assert parse_metadata(f"abc {value}") == {"abc": bytes(3 * 1023)}

    @given(st.dictionaries(st.from_regex("[!-+\\--~]+", fullmatch=True), st.binary(), max_size=5))
    def test_what_clients_write_is_what_is_read(self, pairs: dict[str, bytes]) -> None:
        header = ",".join(f"{key} {encoded(value)}" for key, value in pairs.items())
        if len(header) <= MAX_METADATA:
            assert parse_metadata(header) == pairs


class TestPatch:
    def test_the_example(self) -> None:
        step = TUS.read(patch(Upload_Offset=70, Content_Length=30))
        assert step == Append(offset=70)
        done = progress(state="done", offset=100, attached=ATTACHED)
        answer = TUS.answer(step, done, Limits())
        assert (answer.status, answer.json) == (204, None)
        assert answer.headers == {
            "Tus-Resumable": "1.0.0",
            "Upload-Offset": "100",
            "ETag": '"1700000000000"',
            "Last-Modified": "Tue, 14 Nov 2023 22:13:20 GMT",
            "Content-Location": "/v1/r/attachment",
            "Attachment-Version": "5f",
            "Cache-Control": "no-store",
        }

    def test_more_is_to_come(self) -> None:
        answer = TUS.answer(Append(0), progress(), Limits())
        assert answer.headers["Upload-Offset"] == "70"
        assert answer.headers["Upload-Expires"] == EXPIRES_DATE
        assert "ETag" not in answer.headers

    def test_the_length_that_was_deferred(self) -> None:
        assert TUS.read(patch(Upload_Length=3)) == Append(offset=0, length=3)

    @pytest.mark.parametrize(
        ("headers", "status"),
        [
            ({"Content_Type": ""}, 415),
            ({"Content_Type": "application/octet-stream"}, 415),
            ({"Content_Type": "application/partial-upload"}, 415),
            ({"Content_Encoding": "gzip"}, 415),
            ({"Upload_Offset": ""}, 400),
            ({"Upload_Offset": "-1"}, 400),
            ({"Upload_Offset": "1, 2"}, 400),
            ({"Upload_Offset": "x"}, 400),
            ({"Upload_Length": "x"}, 400),
            ({"Upload_Length": str(2**63)}, 413),
            ({"Content_Digest": "sha-256=x"}, 400),
        ],
    )
    def test_refused(self, headers: dict[str, str], status: int) -> None:
        assert refusal_of(patch(**headers)).status == status

    def test_the_offset_is_required(self) -> None:
        assert refusal_of(Head("PATCH", {**VERSION, **CONTENT}, of_upload=True)).status == 400

    def test_parameters_of_the_media_type(self) -> None:
        asked = patch(Content_Type="Application/Offset+Octet-Stream; charset=binary")
        assert TUS.read(asked) == Append(0)

    @pytest.mark.parametrize("digits", [str(2**63), "9" * 5000])
    def test_offsets_that_no_upload_has_are_wrong_ones(self, digits: str) -> None:
        assert TUS.read(patch(Upload_Offset=digits)) == Append(offset=2**63 - 1)


class TestChecksums:
    @pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
    def test_mismatch(self, algorithm: str) -> None:
        digest = hashlib.new(algorithm, b"hello world").digest()
        step = TUS.read(patch(Upload_Checksum=f"{algorithm} {encoded(digest)}"))
        assert isinstance(step, Append)
        received = {}
        for content in (b"hello world", b"hello World"):
            received[content] = HashingReader(io.BytesIO(content), step.claims.algorithms)
            received[content].read()
        step.claims.check(received[b"hello world"])
        with pytest.raises(WrongChecksum) as raised:
            step.claims.check(received[b"hello World"])
        assert (raised.value.status, raised.value.errno) == (460, Errno.INVALID_PARAMETERS)

    def test_the_example(self) -> None:
        step = TUS.read(patch(Upload_Checksum="sha1 Kq5sNclPz7QV2+lfQIuc6R7oRu0="))
        assert isinstance(step, Append)
        hashed = HashingReader(io.BytesIO(b"hello world"), step.claims.algorithms)
        hashed.read()
        step.claims.check(hashed)

    def test_other_digests_have_no_status_of_their_own(self) -> None:
        digest = encoded(hashlib.sha256(b"x").digest())
        step = TUS.read(patch(Content_Digest=f"sha-256=:{digest}:"))
        assert isinstance(step, Append)
        with pytest.raises(InvalidBody) as raised:
            step.claims.check(HashingReader(io.BytesIO()))
        assert raised.value.status == 400

    @pytest.mark.parametrize(
        "value",
        [
            "",
            "sha1",
            "sha1 ",
            "md5 XrY7u+Ae7tCTyyK7j1rNww==",
            "SHA1 Kq5sNclPz7QV2+lfQIuc6R7oRu0=",
            "sha1  Kq5sNclPz7QV2+lfQIuc6R7oRu0=",
            "sha1 Kq5sNclPz7QV2+lfQIuc6R7oRu0",
            "sha1 Kq5sNclPz7QV2-lfQIuc6R7oRu0=",
            "sha1 2aae6c35c94fcfb415dbe95f408b9ce91ee846ed",
            "sha256 Kq5sNclPz7QV2+lfQIuc6R7oRu0=",
            "sha1 Kq5sNclPz7QV2+lfQIuc6R7oRu0=,sha1 Kq5sNclPz7QV2+lfQIuc6R7oRu0=",
        ],
    )
    def test_malformed(self, value: str) -> None:
        error = refusal_of(patch(Upload_Checksum=value))
        assert (error.status, error.errno) == (400, Errno.INVALID_PARAMETERS)


class TestHead:
    def test_the_example(self) -> None:
        answer = TUS.answer(Inspect(), progress(notes="filename YQ=="), Limits())
        assert (answer.status, answer.json) == (200, None)
        assert answer.headers == {
            "Upload-Offset": "70",
            "Upload-Length": "100",
            "Upload-Metadata": "filename YQ==",
            "Upload-Expires": EXPIRES_DATE,
            "Tus-Resumable": "1.0.0",
            "Cache-Control": "no-store",
        }

    def test_while_the_length_is_not_known(self) -> None:
        headers = TUS.answer(Inspect(), progress(length=None), Limits()).headers
        assert headers["Upload-Defer-Length"] == "1"
        assert headers["Upload-Offset"] == "70"
        assert "Upload-Length" not in headers

    @pytest.mark.parametrize("state", ["open", "finishing"])
    @pytest.mark.parametrize("length", [1, 2, 100])
    @pytest.mark.parametrize("step", [Inspect(), Append(0), Create(has_content=True)])
    def test_the_last_byte_is_missing_until_the_file_is_attached(
        self, step: Step, length: int, state: str
    ) -> None:
        whole = progress(state=state, offset=length, length=length)
        assert TUS.answer(step, whole, Limits()).headers["Upload-Offset"] == str(length - 1)

    def test_done(self) -> None:
        done = progress(state="done", offset=100, attached=ATTACHED)
        headers = TUS.answer(Inspect(), done, Limits()).headers
        assert headers["Upload-Offset"] == headers["Upload-Length"] == "100"
        assert headers["ETag"] == ATTACHED.etag
        assert "Upload-Expires" not in headers


def test_delete() -> None:
    answer = TUS.answer(Cancel(), progress(state="failed"), Limits())
    assert (answer.status, answer.json) == (204, None)
    assert answer.headers == {"Tus-Resumable": "1.0.0", "Cache-Control": "no-store"}


class TestOptions:
    def test_what_there_is(self) -> None:
        answer = TUS.announce(Limits(max_size=1_073_741_824))
        assert answer.status == 204
        assert answer.headers == {
            "Tus-Resumable": "1.0.0",
            "Tus-Version": "1.0.0",
            "Tus-Extension": "creation,creation-with-upload,creation-defer-length,expiration,"
            "checksum,termination",
            "Tus-Max-Size": "1073741824",
            "Tus-Checksum-Algorithm": "sha1,sha256",
            "Cache-Control": "no-store",
        }

    def test_without_a_limit(self) -> None:
        assert "Tus-Max-Size" not in TUS.announce(Limits()).headers


class TestRefusals:
    @pytest.mark.parametrize(
        "error", [WrongOffset(), UploadNotFound(), UploadGone(), TakenOver(), WrongChecksum("x")]
    )
    def test_no_error_tells_an_offset(self, error: AttachmentError) -> None:
        body = {"code": error.status, "errno": error.errno.value, "message": str(error)}
        whole = progress(state="finishing", offset=100)
        answer = TUS.refuse(patch(), error, body, whole, Limits())
        assert (answer.status, answer.json) == (error.status, body)
        assert answer.headers == {
            "Tus-Resumable": "1.0.0",
            "Upload-Expires": EXPIRES_DATE,
            "Cache-Control": "no-store",
        }

    def test_uploads_that_a_client_may_not_know_of(self) -> None:
        answer = TUS.refuse(head("HEAD"), UploadNotFound(), {"code": 404}, None, Limits())
        assert answer.headers == {"Tus-Resumable": "1.0.0", "Cache-Control": "no-store"}

    def test_too_large_a_file_is_told_what_the_limit_is(self) -> None:
        answer = TUS.refuse(head("POST"), TooLarge(), {"code": 413}, None, Limits(max_size=9))
        assert answer.headers["Tus-Max-Size"] == "9"


NAMES = [
    *("Upload-Length", "Upload-Offset", "Upload-Defer-Length", "Upload-Metadata"),
    *("Upload-Checksum", "Content-Type", "Content-Digest", "Repr-Digest", "Content-MD5"),
    *("X-HTTP-Method-Override", "Tus-Resumable", "Upload-Concat", "Content-Encoding"),
]
VALUES = st.one_of(
    st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\0")),
    st.integers().map(str),
    st.sampled_from(["1.0.0", "PATCH", "sha1 YQ==", "filename YQ==", CONTENT["Content-Type"]]),
)


@given(
    method=st.sampled_from(["POST", "PATCH", "HEAD", "DELETE", "GET"]),
    headers=st.dictionaries(st.sampled_from(NAMES), VALUES),
    of_upload=st.booleans(),
    has_version=st.booleans(),
)
def test_any_head_is_a_step_or_an_error_of_this_package(
    method: str, headers: dict[str, str], of_upload: bool, has_version: bool
) -> None:
    asked = Head(method, {**headers, **(VERSION if has_version else {})}, of_upload)
    result: Step | AttachmentError
    try:
        result = TUS.read(asked)
    except AttachmentError as error:
        result = error
    if isinstance(result, AttachmentError):
        assert 400 <= result.status < 500
    else:
        assert isinstance(result, Create) != of_upload
