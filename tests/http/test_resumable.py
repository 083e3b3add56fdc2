"""Each row tests a sentence of draft-ietf-httpbis-resumable-upload, or of our docs."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest
from hypothesis import given, strategies as st

from kinto_attachment.errors import (
    AttachmentError,
    InvalidBody,
    MethodNotAllowed,
    TooLarge,
    UploadComplete,
    UploadGone,
    WrongLength,
    WrongOffset,
)
from kinto_attachment.http.resumable import PROBLEMS, ResumableUploads
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

IETF = ResumableUploads()
PARTIAL = "application/partial-upload"
OF_ALL = {"Upload-Draft-Interop-Version": "8", "Cache-Control": "no-store"}
LIMITS = Limits(max_size=1_000_000_000, max_age=3600)
LIMIT = "max-size=1000000000, max-age=3600"
ATTACHED = Attached(201, '"1700000000000"', "Tue, 14 Nov 2023 22:13:20 GMT", {"size": 100}, "5f")
TELLS_ATTACHED = {
    "ETag": '"1700000000000"',
    "Last-Modified": "Tue, 14 Nov 2023 22:13:20 GMT",
    "Content-Location": "/v1/r/attachment",
    "Attachment-Version": "5f",
}
SHA = base64.b64encode(hashlib.sha256(b"abc").digest()).decode("ascii")


def head(method: str, *, of_upload: bool = False, **headers: object) -> Head:
    named = {name.replace("_", "-"): str(value) for name, value in headers.items()}
    return Head(method, named, of_upload)


def put(**headers: object) -> Head:
    return head("PUT", **headers)


def patch(**headers: object) -> Head:
    """A PATCH with three bytes at the beginning, unless ``headers`` override that."""
    given: dict[str, object] = {
        "Upload_Complete": "?0",
        "Upload_Offset": 0,
        "Content_Length": 3,
        "Content_Type": PARTIAL,
    }
    return head("PATCH", of_upload=True, **{**given, **headers})


def without(asked: Head, name: str) -> Head:
    rest = {key: value for key, value in asked.headers.items() if key != name}
    return Head(asked.method, rest, asked.of_upload)


def progress(**fields: Any) -> Progress:
    defaults = {"state": "open", "offset": 25, "length": 100, "expires": 0}
    return Progress("/v1/u", "/v1/r", **{**defaults, **fields})


def refusal_of(asked: Head) -> AttachmentError:
    with pytest.raises(AttachmentError) as raised:
        IETF.read(asked)
    return raised.value


class TestRecognizes:
    @pytest.mark.parametrize(
        ("asked", "is_its"),
        [
            (put(Upload_Complete="?0"), True),
            (put(Upload_Complete="?1"), True),
            (put(Upload_Complete="?1", Upload_Draft_Interop_Version=8), True),
            (head("POST", Upload_Complete="?0"), True),
            (put(Content_Type=PARTIAL), True),
            (put(Content_Type="Application/Partial-Upload; x=y"), True),
            (patch(), True),
            (head("HEAD", of_upload=True), True),
            (head("DELETE", of_upload=True, Upload_Draft_Interop_Version=8), True),
            (head("DELETE", of_upload=True), False),
            (head("GET", of_upload=True), False),
            (put(), False),
            (put(Upload_Length=3), False),
            (put(Upload_Incomplete="?1", Upload_Draft_Interop_Version=3), False),
            # Other values are ignored.
            (put(Upload_Complete="1"), False),
            (put(Upload_Complete="true"), False),
            (put(Upload_Complete="?1, ?1"), False),
            # Unless the request can only be a malformed creation of an upload.
            (put(Upload_Complete="1", Upload_Draft_Interop_Version=8), True),
            # Ordinary uploads.
            (head("POST", Upload_Complete="?1"), False),
            (head("POST", Upload_Complete="?1", Upload_Draft_Interop_Version=8), False),
            (put(Upload_Complete="?1", Upload_Draft_Interop_Version=6), False),
            (put(Upload_Complete="?0", Upload_Draft_Interop_Version=6), True),
        ],
    )
    def test_requests(self, asked: Head, is_its: bool) -> None:
        assert IETF.recognizes(asked) is is_its


class TestCreation:
    def test_example_b(self) -> None:
        asked = put(Upload_Complete="?0", Content_Length=25, Upload_Length=100)
        step = IETF.read(asked)
        assert step == Create(length=100, has_content=True)
        answer = IETF.answer(step, progress(), LIMITS)
        assert (answer.status, answer.json) == (201, None)
        assert answer.headers == {
            **OF_ALL,
            "Location": "/v1/u",
            "Upload-Offset": "25",
            "Upload-Complete": "?0",
            "Upload-Limit": LIMIT,
        }

    def test_careful(self) -> None:
        asked = put(
            Upload_Complete="?0",
            Upload_Draft_Interop_Version=8,
            Content_Length=0,
            Content_Type="text/plain; charset=utf-8",
            Content_Disposition="attachment; filename*=UTF-8''%e2%82%ac.txt",
            Repr_Digest=f"sha-256=:{SHA}:",
        )
        step = IETF.read(asked)
        assert isinstance(step, Create)
        assert (step.filename, step.mimetype) == ("€.txt", "text/plain; charset=utf-8")
        assert (step.length, step.has_content, step.complete) == (None, False, False)
        assert [claim.header for claim in step.file_claims.claims] == ["Repr-Digest"]
        assert not step.claims

    @pytest.mark.parametrize(
        ("headers", "length"),
        [
            ({"Content_Length": 3}, 3),
            ({"Content_Length": 3, "Upload_Length": 3}, 3),
            ({"Transfer_Encoding": "chunked"}, None),
            ({"Transfer_Encoding": "chunked", "Upload_Length": 3}, 3),
            ({"Content_Length": 0}, 0),
            ({}, 0),
            ({"Content_Length": 3, "Content_Encoding": "gzip"}, 3),
        ],
    )
    def test_the_whole_file(self, headers: dict[str, object], length: int | None) -> None:
        step = IETF.read(put(Upload_Complete="?1", **headers))
        assert isinstance(step, Create)
        assert (step.length, step.complete) == (length, True)

    @pytest.mark.parametrize("value", ["-1", "3.0", "x", "", "3, 3", "10000000000000000"])
    def test_lengths_that_are_none_are_ignored(self, value: str) -> None:
        step = IETF.read(put(Upload_Complete="?0", Upload_Length=value, Content_Length=3))
        assert step == Create(has_content=True)

    @pytest.mark.parametrize(
        "headers",
        [
            {"Upload_Complete": "?1", "Content_Length": 3, "Upload_Length": 4},
            {"Upload_Complete": "?1", "Content_Length": 3, "Upload_Length": 2},
            {"Upload_Complete": "?1", "Content_Length": 0, "Upload_Length": 1},
            {"Upload_Complete": "?1", "Upload_Length": 1},
            {"Upload_Complete": "?0", "Content_Length": 3, "Upload_Length": 2},
        ],
    )
    def test_lengths_that_contradict_each_other(self, headers: dict[str, object]) -> None:
        error = refusal_of(put(**headers))
        assert isinstance(error, WrongLength)
        assert error.status == 400

    @pytest.mark.parametrize(
        ("asked", "status"),
        [
            (head("POST", Upload_Complete="?0"), 400),
            (head("PATCH", Upload_Complete="?0"), 400),
            (put(Upload_Complete="1", Upload_Draft_Interop_Version=8), 400),
            (put(Upload_Complete="?0", Content_Type=PARTIAL), 415),
            (put(Content_Type=PARTIAL), 415),
            (put(Upload_Complete="?0", Content_Encoding="gzip"), 415),
            (put(Upload_Complete="?0", Repr_Digest="sha-256=abc"), 400),
            (put(Upload_Complete="?0", Content_Digest="x"), 400),
            (put(Upload_Complete="?0", Content_Disposition="attachment; filename"), 400),
        ],
    )
    def test_refused(self, asked: Head, status: int) -> None:
        assert refusal_of(asked).status == status

    def test_the_answer_to_a_whole_file_is_the_one_of_a_plain_put(self) -> None:
        done = progress(state="done", offset=100, attached=ATTACHED)
        answer = IETF.answer(Create(complete=True), done, LIMITS)
        assert (answer.status, answer.json) == (201, {"size": 100})
        assert answer.headers["Upload-Complete"] == "?1"
        assert answer.headers["Location"] == "/v1/r"


class TestVersions:
    @pytest.mark.parametrize("version", ["1", "3", "6", "7", "9", "-8", "80"])
    def test_other_ones(self, version: str) -> None:
        for asked in (
            put(Upload_Complete="?0", Upload_Draft_Interop_Version=version),
            patch(Upload_Draft_Interop_Version=version),
            head("HEAD", of_upload=True, Upload_Draft_Interop_Version=version),
        ):
            error = refusal_of(asked)
            assert (error.status, "Interop-Version should be 8" in str(error)) == (400, True)
            answer = IETF.refuse(asked, error, {"code": 400}, None, Limits())
            assert answer.headers["Upload-Draft-Interop-Version"] == "8"

    @pytest.mark.parametrize("version", ["8", "08", " 8 ", "8;a", "x", "", "8.0", '"8"'])
    def test_the_one_and_none(self, version: str) -> None:
        # Other types than Integer are ignored, and without a version only the 104 is not sent.
        assert IETF.read(patch(Upload_Draft_Interop_Version=version)) == Append(0)
        assert IETF.read(patch()) == Append(0)

    def test_cancelling_works_with_all(self) -> None:
        assert (
            IETF.read(head("DELETE", of_upload=True, Upload_Draft_Interop_Version=3)) == Cancel()
        )


class TestOffsetRetrieval:
    def test_example_a(self) -> None:
        assert IETF.read(head("HEAD", of_upload=True)) == Inspect()
        answer = IETF.answer(Inspect(), progress(), LIMITS)
        assert (answer.status, answer.json) == (200, None)
        assert answer.headers == {
            **OF_ALL,
            "Upload-Complete": "?0",
            "Upload-Offset": "25",
            "Upload-Length": "100",
            "Upload-Limit": LIMIT,
        }

    def test_example_b(self) -> None:
        done = progress(state="done", offset=100, attached=ATTACHED)
        assert IETF.answer(Inspect(), done, LIMITS).headers == {
            **OF_ALL,
            **TELLS_ATTACHED,
            "Upload-Complete": "?1",
            "Upload-Offset": "100",
            "Upload-Length": "100",
        }

    def test_a_length_that_no_client_has_told(self) -> None:
        headers = IETF.answer(Inspect(), progress(length=None), LIMITS).headers
        assert "Upload-Length" not in headers

    @pytest.mark.parametrize("state", ["open", "finishing"])
    def test_the_offset_does_not_tell_whether_it_is_complete(self, state: str) -> None:
        headers = IETF.answer(Inspect(), progress(state=state, offset=100), LIMITS).headers
        assert (headers["Upload-Offset"], headers["Upload-Complete"]) == ("100", "?0")


class TestAppend:
    def test_example_a(self) -> None:
        step = IETF.read(patch(Upload_Offset=25, Content_Length=25))
        assert step == Append(offset=25)
        answer = IETF.answer(step, progress(offset=50), LIMITS)
        assert (answer.status, answer.json) == (204, None)
        assert answer.headers == {
            **OF_ALL,
            "Upload-Complete": "?0",
            "Upload-Offset": "50",
            "Upload-Limit": LIMIT,
        }

    def test_example_b(self) -> None:
        asked = patch(Upload_Complete="?1", Upload_Offset=75, Content_Length=25)
        step = IETF.read(asked)
        assert step == Append(offset=75, length=100, complete=True)
        done = progress(state="done", offset=100, attached=ATTACHED)
        answer = IETF.answer(step, done, LIMITS)
        assert (answer.status, answer.json) == (201, {"size": 100})
        assert answer.headers == {
            **OF_ALL,
            **TELLS_ATTACHED,
            "Upload-Complete": "?1",
            "Upload-Offset": "100",
            "Location": "/v1/r",
        }

    @pytest.mark.parametrize("headers", [{"Content_Length": 0}, {}])
    def test_completion_without_content(self, headers: dict[str, object]) -> None:
        asked = without(patch(Upload_Complete="?1", Upload_Offset=9), "Content-Length")
        asked = Head("PATCH", {**asked.headers, **head("PATCH", **headers).headers}, True)
        assert IETF.read(asked) == Append(offset=9, length=9, complete=True)

    def test_content_of_an_unknown_length(self) -> None:
        asked = without(patch(Upload_Complete="?1", Transfer_Encoding="chunked"), "Content-Length")
        assert IETF.read(asked) == Append(offset=0, complete=True)

    def test_digests(self) -> None:
        field = f"sha-256=:{SHA}:"
        step = IETF.read(patch(Content_Digest=field, Repr_Digest=field))
        assert isinstance(step, Append)
        assert [claim.header for claim in step.claims.claims] == ["Content-Digest"]
        assert [claim.header for claim in step.file_claims.claims] == ["Repr-Digest"]

    @pytest.mark.parametrize(
        ("headers", "status"),
        [
            ({"Content_Type": "application/octet-stream"}, 415),
            ({"Content_Type": "application/offset+octet-stream"}, 415),
            ({"Content_Type": ""}, 415),
            ({"Content_Encoding": "gzip"}, 415),
            ({"Upload_Offset": "-1"}, 400),
            ({"Upload_Offset": "x"}, 400),
            ({"Upload_Offset": "1.0"}, 400),
            ({"Upload_Offset": "1, 1"}, 400),
            ({"Upload_Offset": str(10**15)}, 400),
            ({"Upload_Complete": "1"}, 400),
            ({"Upload_Complete": "?2"}, 400),
        ],
    )
    def test_refused(self, headers: dict[str, object], status: int) -> None:
        assert refusal_of(patch(**headers)).status == status

    @pytest.mark.parametrize(
        ("name", "status"),
        [("Content-Type", 415), ("Upload-Offset", 400), ("Upload-Complete", 400)],
    )
    def test_required_headers(self, name: str, status: int) -> None:
        assert refusal_of(without(patch(), name)).status == status

    @pytest.mark.parametrize(
        "headers",
        [
            {"Upload_Complete": "?1", "Upload_Offset": 5, "Upload_Length": 7},
            {"Upload_Complete": "?1", "Upload_Offset": 5, "Upload_Length": 9},
            {"Upload_Complete": "?0", "Upload_Offset": 5, "Upload_Length": 7},
            {"Upload_Complete": "?0", "Upload_Offset": 9, "Upload_Length": 8},
        ],
    )
    def test_lengths_that_contradict_each_other(self, headers: dict[str, object]) -> None:
        assert isinstance(refusal_of(patch(**headers)), WrongLength)

    @pytest.mark.parametrize("method", ["POST", "PUT", "GET", "X"])
    def test_other_methods(self, method: str) -> None:
        asked = head(method, of_upload=True, Upload_Complete="?0")
        error = refusal_of(asked)
        assert isinstance(error, MethodNotAllowed)
        answer = IETF.refuse(asked, error, {"code": 405}, None, Limits())
        assert answer.headers["Allow"] == "DELETE, HEAD, OPTIONS, PATCH"


def test_cancellation() -> None:
    assert IETF.read(head("DELETE", of_upload=True)) == Cancel()
    answer = IETF.answer(Cancel(), progress(state="failed"), LIMITS)
    assert (answer.status, answer.headers, answer.json) == (204, OF_ALL, None)


class TestOptions:
    def test_what_there_is(self) -> None:
        answer = IETF.announce(Limits(1000, 10, 500, 60))
        assert answer.status == 204
        assert answer.headers == {
            **OF_ALL,
            "Accept-Patch": PARTIAL,
            "Upload-Limit": "max-size=1000, min-size=10, max-append-size=500, max-age=60",
        }

    def test_without_limits(self) -> None:
        assert "Upload-Limit" not in IETF.announce(Limits()).headers


KINTO = {"code": 409, "errno": 122, "error": "Conflict", "message": "The upload has …"}


class TestProblems:
    def refuse(self, error: Exception, progress: Progress | None, code: int = 409) -> Any:
        asked = patch(Upload_Offset=50)
        return IETF.refuse(asked, error, {**KINTO, "code": code}, progress, LIMITS)

    def test_mismatching_offset(self) -> None:
        answer = self.refuse(WrongOffset(), progress(offset=25))
        assert answer.status == 409
        assert answer.headers == {
            **OF_ALL,
            "Content-Type": "application/problem+json",
            "Upload-Offset": "25",
            "Upload-Complete": "?0",
        }
        assert answer.json == {
            **KINTO,
            "type": "https://iana.org/assignments/http-problem-types#mismatching-upload-offset",
            "title": "Mismatching Upload Offset",
            "status": 409,
            "detail": "The upload has …",
            "expected-offset": 25,
            "provided-offset": 50,
        }

    @pytest.mark.parametrize(
        ("error", "kind"),
        [
            (WrongLength(), f"{PROBLEMS}inconsistent-upload-length"),
            (UploadComplete(), f"{PROBLEMS}completed-upload"),
            (InvalidBody(), "about:blank"),
            (ValueError(), "about:blank"),
        ],
    )
    def test_types(self, error: Exception, kind: str) -> None:
        body = self.refuse(error, progress(), 400).json
        assert body["type"] == kind
        assert (body["title"] == "Conflict") is (kind == "about:blank")
        assert {name: body[name] for name in KINTO} == {**KINTO, "code": 400}

    def test_uploads_that_have_ended_have_no_offset(self) -> None:
        answer = self.refuse(UploadGone(), progress(state="failed", offset=100), 410)
        assert answer.headers == {**OF_ALL, "Content-Type": "application/problem+json"}

    def test_uploads_that_a_client_may_not_know_of(self) -> None:
        answer = self.refuse(WrongOffset(), None)
        assert answer.headers == {**OF_ALL, "Content-Type": "application/problem+json"}
        assert "expected-offset" not in answer.json

    @pytest.mark.parametrize(
        ("state", "offset", "complete"),
        [
            ("open", 25, "?0"),
            ("finishing", 100, "?0"),  # It can be retried.
            ("failed", 100, "?1"),  # All of it was transmitted, and refused.
            ("failed", 25, "?0"),
            ("expired", 100, "?0"),
            ("done", 100, "?1"),
        ],
    )
    def test_whether_another_try_makes_sense(self, state: str, offset: int, complete: str) -> None:
        answer = self.refuse(Exception(), progress(state=state, offset=offset))
        assert answer.headers["Upload-Complete"] == complete
        assert answer.headers["Upload-Offset"] == str(offset)

    def test_what_is_too_large_is_told_the_limits(self) -> None:
        assert self.refuse(TooLarge(), None, 413).headers["Upload-Limit"] == LIMIT

    def test_other_media_types_are_told_the_one(self) -> None:
        asked = patch(Content_Type="text/plain")
        answer = IETF.refuse(asked, refusal_of(asked), {"code": 415}, None, LIMITS)
        assert answer.headers["Accept-Patch"] == PARTIAL


NAMES = [
    *("Upload-Complete", "Upload-Offset", "Upload-Length", "Upload-Draft-Interop-Version"),
    *("Content-Type", "Content-Length", "Content-Disposition", "Content-Digest", "Repr-Digest"),
    *("Content-Encoding", "Transfer-Encoding"),
]
VALUES = st.one_of(
    st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\0")),
    st.integers().map(str),
    st.sampled_from(["?0", "?1", "8", PARTIAL, "attachment; filename=x", f"sha-256=:{SHA}:"]),
)


@given(
    method=st.sampled_from(["PUT", "POST", "PATCH", "HEAD", "DELETE", "GET"]),
    headers=st.dictionaries(st.sampled_from(NAMES), VALUES),
    of_upload=st.booleans(),
)
def test_any_head_is_a_step_or_an_error_of_this_package(
    method: str, headers: dict[str, str], of_upload: bool
) -> None:
    asked = Head(method, headers, of_upload)
    IETF.recognizes(asked)
    result: Step | AttachmentError
    try:
        result = IETF.read(asked)
    except AttachmentError as error:
        result = error
    if isinstance(result, AttachmentError):
        assert 400 <= result.status < 500
        answer = IETF.refuse(asked, result, {"code": result.status}, progress(), LIMITS)
        assert answer.status == result.status
    else:
        assert isinstance(result, Create) != of_upload
