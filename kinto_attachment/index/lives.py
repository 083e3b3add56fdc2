"""Lives: what happens to a record between its creation and the next deletion.

Somebody else may create a record, a collection or a bucket with the id of one that was deleted.
Kept files belong to the life in which they were stored, not to the name. A life has a random id,
which is drawn with the first link and inherited by later ones. Links of earlier releases
have none; until reindex gives them one, the links of a record that have none form one life.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Iterable
from dataclasses import replace

from kinto_attachment.index.link import ENDING, Ended, Link

ID_LENGTH = 16  # Hexadecimal digits.


def current_life(links: Iterable[Link]) -> str | None:
    """The current life of a record, from its links; None if they do not have it."""
    lives = {link.life for link in links if not link.ended and link.state not in ENDING}
    return max(lives, default=None)  # The id, if some links have it and others have none.


class Lives:
    """The ids of the lives that one transaction begins or ends."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)

    def of(self, record: str, links: Iterable[Link]) -> str:
        """The life of a record's next link: that of its current links, or else a new one."""
        life = current_life(links)
        return self.begun(record) if life is None else life

    def begun(self, record: str) -> str:
        """The id of a record's new life."""
        return self._id("begun", record)

    def ended(self, record: str) -> str:
        """The id of a life that ends, for links without one."""
        return self._id("ended", record)

    def end(self, link: Link, by: Ended) -> Link:
        """The link after the end of its life."""
        return replace(link, life=link.life or self.ended(link.record), ended=by)

    def _id(self, purpose: str, record: str) -> str:
        # The id is derived, because the links of a record may be read in several pages.
        text = f"{purpose} {record}".encode()
        return hmac.digest(self._secret, text, "sha256").hex()[:ID_LENGTH]
