"""Resumable Uploads for HTTP (draft-ietf-httpbis-resumable-upload), interop version 8.

WSGI has no interim responses, so the server never sends a 104.
"""

from __future__ import annotations

from typing import Any

from kinto_attachment.errors import (
    InvalidBody,
    MethodNotAllowed,
    UnsupportedType,
    UploadComplete,
    UploadGone,
    WrongLength,
    WrongOffset,
)
from kinto_attachment.http.encodings import encoding_of
from kinto_attachment.http.structured_fields import boolean, dictionary, integer
from kinto_attachment.http.upload_steps import (
    Answer,
    Append,
    Cancel,
    Create,
    Head,
    Inspect,
    Limits,
    Progress,
    Step,
)
from kinto_attachment.names import disposition_filename

INTEROP_VERSION = 8
MEDIA_TYPE = "application/partial-upload"
PROBLEMS = "https://iana.org/assignments/http-problem-types#"

COMPLETE, LENGTH, OFFSET = "Upload-Complete", "Upload-Length", "Upload-Offset"
LIMIT, INTEROP = "Upload-Limit", "Upload-Draft-Interop-Version"

# The draft's types of problems, with their titles.
TYPES = (
    (WrongOffset, "mismatching-upload-offset", "Mismatching Upload Offset"),
    (UploadComplete, "completed-upload", "Upload Is Completed"),
    (WrongLength, "inconsistent-upload-length", "Inconsistent Upload Length Values"),
)


class ResumableUploads:
    """The draft's protocol."""

    name = f"ietf/{INTEROP_VERSION}"
    ends_at_length = False

    def recognizes(self, head: Head) -> bool:
        """Malformed headers are ignored, as the draft requires.

        But a request that says it uses the draft is never treated as another one, since its
        content might be a part of a file.
        """
        if head.media_type == MEDIA_TYPE:
            return True
        complete = boolean(head.get(COMPLETE))
        if head.of_upload:  # A HEAD has no mark of the draft, but those of tus have one.
            return complete is not None or INTEROP in head or head.method == "HEAD"
        if complete and (head.method == "POST" or _is_of_another_version(head)):
            # An ordinary request that need not be resumed: a form, or from a client that offers
            # this to every server, as Apple's systems do.
            return False
        return complete is not None or (INTEROP in head and COMPLETE in head)

    def read(self, head: Head) -> Step:
        if not head.of_upload:
            return _creation(head)
        if head.method == "DELETE":
            return Cancel()
        if head.method == "HEAD":
            _check_version(head)
            return Inspect()
        if head.method == "PATCH":
            return _append(head)
        raise MethodNotAllowed("DELETE, HEAD, OPTIONS, PATCH")

    def answer(self, step: Step, progress: Progress, limits: Limits) -> Answer:
        if isinstance(step, Cancel):
            return Answer(204, _headers())
        state = {**_headers(), **_state(progress), **progress.attached_headers}
        if progress.state != "done":
            state |= _limits(limits)
        if isinstance(step, Inspect):
            if progress.length is not None:
                state[LENGTH] = str(progress.length)
            return Answer(200, state)
        if progress.attached is not None:
            attached = progress.attached
            state["Location"] = progress.record_url
            return Answer(attached.status, state, attached.attachment)
        if isinstance(step, Create):
            return Answer(201, {**state, "Location": progress.url})
        return Answer(204, state)

    def refuse(
        self,
        head: Head,
        error: Exception,
        body: dict[str, Any],
        progress: Progress | None,
        limits: Limits,
    ) -> Answer:
        status = int(body["code"])
        headers = {**_headers(), "Content-Type": "application/problem+json"}
        if progress is not None and not isinstance(error, UploadGone):
            headers |= _state(progress)
        if status == 413:
            headers |= _limits(limits)
        if isinstance(error, UnsupportedType):
            headers["Accept-Patch"] = MEDIA_TYPE
        if isinstance(error, MethodNotAllowed):
            headers["Allow"] = error.allowed
        return Answer(status, headers, {**_problem(head, error, body, progress), **body})

    def announce(self, limits: Limits) -> Answer:
        return Answer(204, {**_headers(), **_limits(limits), "Accept-Patch": MEDIA_TYPE})


def _creation(head: Head) -> Create:
    complete = boolean(head.get(COMPLETE))
    if head.media_type == MEDIA_TYPE:
        raise UnsupportedType(f"{MEDIA_TYPE} is for PATCH of an upload.")
    if complete is None:
        raise InvalidBody(f"{COMPLETE} should be ?0 or ?1.")
    _check_version(head)
    if head.method != "PUT":
        raise InvalidBody(f"A file in several requests is created by PUT, with {COMPLETE}: ?0.")
    if not complete:
        encoding_of(head.get("Content-Encoding") or "", ())
    content = _content_length(head)
    length = _length(head, content if complete else None)
    if length is not None and (content or 0) > length:
        raise WrongLength(f"The content is longer than {LENGTH} tells.")
    disposition = head.get("Content-Disposition")
    return Create(
        length=length,
        filename=(disposition_filename(disposition) or "") if disposition else "",
        mimetype=head.get("Content-Type"),
        has_content=head.has_content,
        complete=complete,
        claims=head.claims("Content-Digest", "Content-MD5"),
        file_claims=head.claims("Repr-Digest"),
    )


def _append(head: Head) -> Append:
    _check_version(head)
    if head.media_type != MEDIA_TYPE:
        raise UnsupportedType(f"Content-Type should be {MEDIA_TYPE}.")
    encoding_of(head.get("Content-Encoding") or "", ())
    complete, offset = boolean(head.get(COMPLETE)), _size(head, OFFSET)
    if complete is None:
        raise InvalidBody(f"{COMPLETE} should be ?0 or ?1.")
    if offset is None:
        raise InvalidBody(f"{OFFSET} should be a number of bytes.")
    content = _content_length(head)
    end = None if content is None else offset + content
    length = _length(head, end if complete else None)
    if length is not None and (end or offset) > length:
        raise WrongLength(f"The content ends after what {LENGTH} tells.")
    return Append(
        offset=offset,
        length=length,
        complete=complete,
        claims=head.claims("Content-Digest", "Content-MD5"),
        file_claims=head.claims("Repr-Digest"),
    )


def _content_length(head: Head) -> int | None:
    """The length of the content, which may be 0; None if it is not declared."""
    return head.content_length if head.has_content else 0


def _length(head: Head, end: int | None) -> int | None:
    """The length in ``Upload-Length``, or the end of the content that completes a file."""
    told = _size(head, LENGTH)
    if told is not None and end is not None and told != end:
        raise WrongLength(f"{LENGTH} is {told}, but the content ends at {end}.")
    return end if told is None else told


def _size(head: Head, name: str) -> int | None:
    value = integer(head.get(name))
    return value if value is not None and value >= 0 else None


def _is_of_another_version(head: Head) -> bool:
    """Clients may use the draft without declaring a version, which only a 104 requires."""
    return integer(head.get(INTEROP)) not in (None, INTEROP_VERSION)


def _check_version(head: Head) -> None:
    if _is_of_another_version(head):
        raise InvalidBody(f"{INTEROP} should be {INTEROP_VERSION}.")


def _headers() -> dict[str, str]:
    return {INTEROP: str(INTEROP_VERSION), "Cache-Control": "no-store"}


def _state(progress: Progress) -> dict[str, str]:
    # Clients treat an error with ?1 as a permanent one for the whole file.
    whole = progress.length is not None and progress.offset == progress.length
    complete = progress.state == "done" or (progress.state == "failed" and whole)
    return {OFFSET: str(progress.offset), COMPLETE: "?1" if complete else "?0"}


def _limits(limits: Limits) -> dict[str, str]:
    members = {
        "max-size": limits.max_size,
        "min-size": limits.min_size,
        "max-append-size": limits.max_append_size,
        "max-age": limits.max_age,
    }
    told = {key: value for key, value in members.items() if value}
    return {LIMIT: dictionary(told)} if told else {}


def _problem(
    head: Head, error: Exception, body: dict[str, Any], progress: Progress | None
) -> dict[str, Any]:
    """The members of RFC 9457."""
    problem: dict[str, Any] = {
        "type": "about:blank",
        "title": body.get("error", ""),
        "status": body["code"],
        "detail": body.get("message", ""),
    }
    if isinstance(error, WrongOffset) and progress is not None:
        problem["expected-offset"] = progress.offset
        problem["provided-offset"] = _size(head, OFFSET)
    for kind, name, title in TYPES:
        if isinstance(error, kind):
            problem |= {"type": f"{PROBLEMS}{name}", "title": title}
    return problem
