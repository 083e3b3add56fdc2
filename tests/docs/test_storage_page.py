"""The rules for buckets in docs/storage.rst do what that page says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from kinto_attachment.storage.partials import PARTIALS_FOLDER
from tests.storage.test_s3_rights import policy
from tests.support.application import ALICE, CONTENT, RECORD, attach, sha256
from tests.support.backends import runs_on
from tests.support.documents import code_blocks
from tests.support.services import S3

pytestmark = runs_on("seaweedfs")

PAGE = "docs/storage.rst"
REDIRECTED = {"Origin": "null"}  # What browsers send after a redirect from another origin.


@pytest.fixture
def rules(app: Any, seaweedfs: S3) -> Iterator[Any]:
    """Sets the rules of the page for the server's bucket, after a change."""
    settings = app.app.registry.attachment_settings
    bucket, client = settings["aws.bucket_name"], seaweedfs.client()
    (code,) = [code for code in code_blocks(PAGE, "json") if "CORSRules" in code]

    def put(**changes: Any) -> None:
        written = [{**rule, **changes} for rule in json.loads(code)["CORSRules"]]
        client.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": written})

    yield put
    client.delete_bucket_cors(Bucket=bucket)


def download(app: Any, **headers: str) -> requests.Response:
    attach(app)
    redirect = app.get(f"{RECORD}/attachment", headers={**ALICE, **REDIRECTED}, status=302)
    assert redirect.headers["Access-Control-Allow-Origin"] == "*"
    assert redirect.headers["Cross-Origin-Resource-Policy"] == "cross-origin"
    return requests.get(redirect.location, headers={**REDIRECTED, **headers}, timeout=90)


def test_redirected_pages_may_read_what_they_need(app: Any, rules: Any) -> None:
    rules()
    answer = download(app, Range="bytes=0-1")
    assert (answer.status_code, answer.content) == (206, CONTENT[:2])
    assert answer.headers["Access-Control-Allow-Origin"] in ("*", "null")
    exposed = answer.headers["Access-Control-Expose-Headers"].replace(" ", "").split(",")
    assert {"Content-Disposition", "Content-Range", "ETag"} <= set(exposed)
    assert answer.headers["ETag"] != f'"{sha256(CONTENT)}"'


def test_a_rule_for_one_origin_refuses_them(app: Any, rules: Any) -> None:
    rules(AllowedOrigins=["https://app.example.com"])
    assert "Access-Control-Allow-Origin" not in download(app).headers


def test_the_rules_for_google_say_the_same() -> None:
    s3, google = (json.loads(code) for code in code_blocks(PAGE, "json") if "AgeSeconds" in code)
    (_, one), (other,) = s3["CORSRules"], google  # The first one is for uploads to S3.
    assert other == {
        "origin": one["AllowedOrigins"],
        "method": one["AllowedMethods"],
        "responseHeader": one["ExposeHeaders"],
        "maxAgeSeconds": one["MaxAgeSeconds"],
    }


def test_the_rights_are_those_that_are_tested() -> None:
    (code,) = (code for code in code_blocks(PAGE, "json") if "Statement" in code)
    assert json.loads(code) == policy("my-attachments")


def test_a_bucket_takes_the_rules_for_what_was_left(seaweedfs: S3) -> None:
    (code,) = (code for code in code_blocks(PAGE, "json") if "DaysAfterInitiation" in code)
    rules = json.loads(code)
    client, bucket = seaweedfs.client(), seaweedfs.create_bucket()
    client.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration=rules)
    aborting, expiring = rules["Rules"]
    week = 7  # The default of uploads.max_age.
    assert aborting["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"] > week
    assert expiring["Expiration"]["Days"] > week
    assert expiring["Filter"]["Prefix"] == PARTIALS_FOLDER
