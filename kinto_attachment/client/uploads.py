"""Sending a file to a record: in one form, or in several requests."""

from __future__ import annotations

from collections.abc import Callable

from kinto_attachment.client import contents, resumable as resuming
from kinto_attachment.client.direct import DirectUpload
from kinto_attachment.client.errors import (
    ConflictError,
    MismatchError,
    NotFoundError,
    RejectedError,
)
from kinto_attachment.client.forms import Form, Progress
from kinto_attachment.client.resumable import NewUpload, ResumableUpload
from kinto_attachment.client.session import Session
from kinto_attachment.metadata import Attachment, Original


class Uploads:
    """Uploads to the records of a collection.

    ``endpoint_of`` returns the URL of a record's attachment, ``stat`` the attachment.
    """

    def __init__(
        self,
        session: Session,
        endpoint_of: Callable[[str], str],
        stat: Callable[[str], Attachment],
    ) -> None:
        self._session = session
        self._endpoint_of = endpoint_of
        self._stat = stat
        self._protocols: list[str] | None = None

    def send(
        self,
        record_id: str,
        new: NewUpload,
        progress: Progress | None = None,
        *,
        resumable: bool | None = None,
        direct: bool = False,
    ) -> Attachment:
        """Attach a file. If ``resumable`` is None, its size and the server decide.

        ``direct`` sends it to the server's storage.

        :raises ConflictError, MismatchError, RejectedError: see ``AttachmentClient.upload``.
        """
        attachment = None
        if direct:
            endpoint = self._endpoint_of(record_id)
            attachment = DirectUpload(self._session, endpoint, new, progress).send()
        elif resumable or (resumable is None and self._can_resume(new)):
            attachment = self._in_several(record_id, new, progress, forced=bool(resumable))
        if attachment is None:
            attachment = self._in_a_form(record_id, new, progress)
        if _received(attachment).hash != new.source.sha256:
            raise MismatchError("The server has stored other bytes than those sent")
        return attachment

    def _in_a_form(self, record_id: str, new: NewUpload, progress: Progress | None) -> Attachment:
        form = Form(new.source, new.filename, new.mimetype, new.fields, progress)
        headers = {"Content-Type": form.content_type, **new.conditions}
        try:
            response = self._session.send("POST", self._endpoint_of(record_id), headers, form)
            return contents.attachment(response.json())
        except ConflictError as error:
            # An earlier attempt may have succeeded, with its response lost.
            if error.attempts == 1 or not self._has(record_id, new.source.sha256):
                raise
            return self._stat(record_id)

    def _in_several(
        self, record_id: str, new: NewUpload, progress: Progress | None, *, forced: bool
    ) -> Attachment | None:
        """Upload in several requests; None if the collection accepts only forms."""
        upload = ResumableUpload(self._session, self._endpoint_of(record_id), new, progress)
        try:
            upload.send()
        except RejectedError as error:
            # A collection that compresses files accepts only forms.
            status = None if error.response is None else error.response.status_code
            if forced or upload.has_begun or status != 400:
                raise
            return None
        return self._stat(record_id)

    def _can_resume(self, new: NewUpload) -> bool:
        return new.source.size > resuming.LARGE and new.fits and self._server_resumes()

    def _server_resumes(self) -> bool:
        """Whether the server supports uploads in several requests."""
        if self._protocols is None:
            answer, _ = self._session.request("get", "/")
            described = answer.get("capabilities", {}).get("attachments", {})
            self._protocols = list(described.get("resumable", ()))
        return resuming.PROTOCOL in self._protocols

    def _has(self, record_id: str, sha256: str) -> bool:
        try:
            return _received(self._stat(record_id)).hash == sha256
        except NotFoundError:
            return False


def _received(attachment: Attachment) -> Attachment | Original:
    """The file that the server received, before compression."""
    return attachment.original or attachment
