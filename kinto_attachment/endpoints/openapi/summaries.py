"""What each operation does, and the permission that it requires."""

from __future__ import annotations

WRITE = "`write` on the record, or `record:create` on the collection if there is no such record"
READ = "`read` on the record"
READ_VERSION = (
    "`read` on the record for the current file, and for an earlier one the permission that "
    "`versions_permission` names. After the record was deleted: `write` on the collection"
)
CHANGE = "`write` on the record"
CHANGE_VERSION = f"{CHANGE}. After the record was deleted: `write` on the collection"
READ_FILES = "`read` on the collection"
RULES = "`read` on the collection, or `record:create`"
WRITE_COLLECTION = "`write` on the collection"
CREATOR = "the user who created the upload"

# By the id of the operation.
SUMMARIES = {
    "append_to_upload": ("Append bytes to an upload", CREATOR),
    "attach_file": ("Attach a file with a form, or copy one with JSON", WRITE),
    "cancel_upload": ("Cancel an upload", f"{CREATOR}, or {WRITE_COLLECTION}"),
    "complete_upload": ("Attach the file of a direct upload", CREATOR),
    "create_record_with_file": (
        "Create a record with a file, with a form, or with JSON for a copy",
        "`record:create` on the collection",
    ),
    "create_upload": ("Begin an upload by tus, or a direct one with JSON", WRITE),
    "delete_version": ("Delete an earlier file for good", CHANGE_VERSION),
    "detach_file": ("Delete the file and keep the record", CHANGE),
    "end_hold": ("End an open-ended hold", WRITE_COLLECTION),
    "get_archive": ("The files of a collection in one archive", READ_FILES),
    "get_archive_url": ("A link to the archive that needs no credentials", READ_FILES),
    "get_attachment": ("Read the record's file", READ),
    "get_attachment_url": ("A link to the record's file that needs no credentials", READ),
    "get_file": (
        "Read a stored file",
        "`read` on a record that has the file; for an earlier file, what `get_version` requires",
    ),
    "get_hold": ("The hold of the record's file", READ),
    "get_rules": ("The rules for new files of a collection", RULES),
    "get_upload": ("The state of an upload", CREATOR),
    "get_version": ("Read a version", READ_VERSION),
    "get_version_url": ("A link to a version that needs no credentials", READ_VERSION),
    "hold_file": ("Hold the record's file, or hold it for longer", WRITE_COLLECTION),
    "list_files": (
        "The files of a collection",
        f"{READ_FILES}. With `state=kept`: {WRITE_COLLECTION}",
    ),
    "list_uploads": ("The unfinished uploads of a collection", WRITE_COLLECTION),
    "list_versions": ("The current file of a record, and earlier ones", READ_VERSION),
    "post_to_upload": ("The same as PATCH, HEAD or DELETE, by X-HTTP-Method-Override", CREATOR),
    "put_bytes": ("Send the bytes of a direct upload", "the token of the URL, no credentials"),
    "put_file": ("Attach a file with its raw bytes", WRITE),
    "rename_file": ("Rename the file without an upload", CHANGE),
    "restore_version": ("Make an earlier file the current one again", CHANGE_VERSION),
}
