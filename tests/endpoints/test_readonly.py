"""A readonly server serves files, and accepts none."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.application import (
    ALICE,
    CONTENT,
    DEFAULT,
    MEMORY,
    RECORD,
    attach,
    attachment_of,
    make_app,
    put_raw,
    read,
    stored_files,
)
from tests.support.backends import ON_POSTGRESQL, Build

URL = f"{RECORD}/attachment"


@ON_POSTGRESQL
class TestReadonly:
    @pytest.fixture
    def readonly(self, build: Build) -> Any:
        attach(build())
        return build({"readonly": "true"})

    def test_gives_files_out(self, readonly: Any) -> None:
        assert read(readonly) == CONTENT
        assert read(readonly, attachment_of(readonly)["location"]) == CONTENT
        readonly.get(URL, headers={**ALICE, "Range": "bytes=0-0"}, status=206)

    @pytest.mark.parametrize("record", [RECORD, DEFAULT])
    def test_takes_none_in(self, readonly: Any, record: str) -> None:
        for upload in (attach, put_raw):
            response = upload(readonly, record, status=405)
            assert response.json["errno"] == 115
            assert readonly.app.body.taken == 0
        assert len(stored_files(readonly)) == 1

    def test_deletes_none(self, readonly: Any) -> None:
        assert readonly.delete(URL, headers=ALICE, status=405).json["errno"] == 115
        assert read(readonly) == CONTENT

    def test_takes_none_in_a_batch(self, readonly: Any) -> None:
        requests = [
            {"method": "PUT", "path": f"/v1{URL}?filename=a.json", "body": {"n": 1}},
            {"method": "DELETE", "path": f"/v1{URL}"},
        ]
        readonly.post_json("/batch", {"requests": requests}, headers=ALICE, status=405)
        assert read(readonly) == CONTENT

    def test_tells_nobody_more_than_others(self, readonly: Any) -> None:
        readonly.get(URL, headers={}, status=401)


def test_starts_without_its_storage(tmp_path: Any) -> None:
    app = make_app({"base_path": str(tmp_path / "none")}, MEMORY, readonly="true")
    assert app.get("/").json["capabilities"]["attachments"]
