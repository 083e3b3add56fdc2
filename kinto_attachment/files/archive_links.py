"""Links to the archive of a collection's files, by the server's own token."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import urlencode

from kinto_attachment.files.list_queries import parameters
from kinto_attachment.files.locations import outermost
from kinto_attachment.files.signatures import signing_of, valid_claims
from kinto_attachment.files.signed_links import SignedLink, rounded_expiry
from kinto_attachment.kinto_types import KintoObject, Request
from kinto_attachment.uris import CollectionURI

PURPOSE = "zip"
# The parameters that are not filters: of the request for a link, and of the link.
VALIDITY, TOKEN = "expires_in", "token"


def signed_archive(
    request: Request, route: str, uri: CollectionURI, collection: KintoObject, expires_in: int
) -> SignedLink:
    """A link to the archive with the filters of the request's query; ``route`` is the archive's.

    :raises LinksNotConfigured: the server has no key.
    """
    longest = int(request.registry.attachment_settings["links.max_age"])
    expires = rounded_expiry(time.time(), expires_in, longest)
    claims = _claims(request, uri, collection, expires)
    token = signing_of(request.registry).sign(PURPOSE, claims)
    ids = {"bucket_id": uri.bucket_id, "collection_id": uri.collection_id}
    url = outermost(request).route_url(route, **ids)
    query = urlencode([*map(tuple, claims["filters"]), (TOKEN, token)])
    return SignedLink(f"{url}?{query}", expires * 1000)


def is_linked_archive(request: Request, uri: CollectionURI, collection: KintoObject) -> bool:
    """Whether the request has a valid token for the archive of the collection, with its filters.

    The token ends when the attributes or permissions of the collection change, because somebody
    else can delete a collection and create another one with the same id.
    """
    found = valid_claims(request.registry, PURPOSE, request.GET.get(TOKEN, ""))
    return found is not None and found == _claims(request, uri, collection, found["expires"])


def _claims(
    request: Request, uri: CollectionURI, collection: KintoObject, expires: int
) -> dict[str, Any]:
    """The content of a token. The filters are also in the URL, where they are readable."""
    others = (VALIDITY, TOKEN)
    return {
        "collection": str(uri),
        "changed": collection["last_modified"],
        "filters": [list(each) for each in parameters(request) if each[0] not in others],
        "expires": expires,
    }
