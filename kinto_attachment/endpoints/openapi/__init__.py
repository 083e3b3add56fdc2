"""The OpenAPI 2.0 description at ``/v1/__api__``: one function for each operation."""

from kinto_attachment.endpoints.openapi.description import describe_files
from kinto_attachment.endpoints.openapi.downloads import (
    download_of_file,
    download_of_record,
    link_to_file,
    link_to_version,
)
from kinto_attachment.endpoints.openapi.holds import end_of_hold, hold_of_file, holding
from kinto_attachment.endpoints.openapi.lists import archive, link_to_archive, listing, rules
from kinto_attachment.endpoints.openapi.sessions import (
    direct_bytes,
    upload_append,
    upload_cancellation,
    upload_completion,
    upload_creation,
    upload_list,
    upload_override,
    upload_state,
)
from kinto_attachment.endpoints.openapi.uploads import (
    removal,
    renaming,
    upload_for_new_record,
    upload_of_body,
    upload_of_form,
)
from kinto_attachment.endpoints.openapi.versions import (
    download_of_version,
    list_of_versions,
    removal_of_version,
    restoring,
)

__all__ = [
    "archive",
    "describe_files",
    "direct_bytes",
    "download_of_file",
    "download_of_record",
    "download_of_version",
    "end_of_hold",
    "hold_of_file",
    "holding",
    "link_to_archive",
    "link_to_file",
    "link_to_version",
    "list_of_versions",
    "listing",
    "removal",
    "removal_of_version",
    "renaming",
    "restoring",
    "rules",
    "upload_append",
    "upload_cancellation",
    "upload_completion",
    "upload_creation",
    "upload_for_new_record",
    "upload_list",
    "upload_of_body",
    "upload_of_form",
    "upload_override",
    "upload_state",
]
