"""Whether a quota has space for more files, and the error if it has not."""

from __future__ import annotations

from kinto_attachment.errors import QuotaExceeded
from kinto_attachment.index.totals import Totals
from kinto_attachment.quota_settings import Quota, parts_of


def check(quota: Quota, used: Totals, more: Totals) -> None:
    """Refuse an increase that exceeds a quota; a decrease is never refused.

    ``used`` is without ``more``.

    :raises QuotaExceeded:
    """
    if more.files > 0 and 0 < quota.files < used.files + more.files:
        raise exceeded(quota, used, of_files=True)
    if more.bytes > 0 and 0 < quota.bytes < used.bytes + more.bytes:
        raise exceeded(quota, used)


def exceeded(quota: Quota, used: Totals, *, of_files: bool = False) -> QuotaExceeded:
    """The error with the limit that a client has reached, and the space left."""
    limit, in_use = (quota.files, used.files) if of_files else (quota.bytes, used.bytes)
    left, unit = max(limit - in_use, 0), "files" if of_files else "bytes"
    kind = "bucket" if parts_of(quota.scope)[1] is None else "collection"
    return QuotaExceeded(
        f"The quota of the {kind} leaves {left} of {limit} {unit}.",
        details={
            "reason": "quota",
            "limit": f"quota_{unit}",
            "of": quota.scope,
            "setting": quota.settings[of_files],
            "quota": limit,
            "used": in_use,
            "left": left,
        },
    )
