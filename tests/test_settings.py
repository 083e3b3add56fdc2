"""Settings are read once, at start-up, and any error in them stops the server then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pyramid.exceptions import ConfigurationError

from kinto_attachment.options import OPTIONS, Option
from kinto_attachment.parsers import DownloadMode, base_url
from kinto_attachment.settings import Settings
from tests.support import application

LOCAL = {"base_path": "/tmp/files"}
KMS_KEY = "projects/p/locations/l/keyRings/r/cryptoKeys/k"


def parse(_storage: dict[str, Any] = LOCAL, **options: Any) -> Settings:
    given = {**_storage, **options}
    return Settings.parse({f"attachment.{name}": value for name, value in given.items()})


def refusal(_storage: dict[str, Any] = LOCAL, **options: Any) -> str:
    with pytest.raises(ConfigurationError) as raised:
        parse(_storage, **options)
    return str(raised.value)


class TestDefaults:
    def test_of_a_collection(self) -> None:
        rules = parse().for_collection("b", "c")
        assert rules.folder is None
        assert rules.randomize
        assert rules.filename_pattern.format(filename="a.txt", datetime="", rid="") == "a.txt"
        assert not rules.keep_old_files
        assert {"txt", "jpg", "pdf", "json"} < rules.extensions
        assert not {"exe", "js", "html", "php"} & rules.extensions
        assert rules.mimetypes == {}
        assert rules.max_size == 0
        assert not rules.gzipped
        assert not {"text/html", "image/svg+xml", "application/pdf"} & rules.inline_types

    def test_of_the_server(self) -> None:
        settings = parse()
        assert settings["base_url"] is None
        assert settings["extra.base_url"] is None
        assert settings["public"] is False
        assert settings["downloads"] is None
        assert settings["signed_url_ttl"] == 300
        assert settings.readonly is False

    def test_are_themselves_valid(self) -> None:
        for option in OPTIONS:
            if option.default is not None:
                option.parse(option.default)


@pytest.mark.parametrize(
    ("name", "value", "parsed"),
    [
        ("public", "true", True),
        ("public", True, True),
        ("public", "Yes", True),
        ("public", "off", False),
        ("public", 0, False),
        ("max_size", "10", 10),
        ("max_size", " 10 ", 10),
        ("max_size", 10, 10),
        ("max_size_bytes", "10", 10),
        ("base_url", "https://cdn.example.com/files/", "https://cdn.example.com/files/"),
        ("base_url", "https://cdn.example.com/files", "https://cdn.example.com/files/"),
        ("base_url", "", ""),
        ("extensions", "images+TXT", None),
        ("extensions", "any", frozenset()),
        ("extensions", " Any ", frozenset()),
        ("extensions", "txt + Images", None),
        ("extensions", "images txt", None),
        ("extensions", "7z", frozenset({"7z"})),
        ("extensions", 7, frozenset({"7"})),
        ("extensions", ".txt+.md", frozenset({"txt", "md"})),
        ("mimetypes", ".FTL:text/x-fluent", {".ftl": "text/x-fluent"}),
        ("mimetypes", " .a:a/b ; .c : c/d+e", {".a": "a/b", ".c": "c/d+e"}),
        ("downloads", "stream", DownloadMode("stream")),
        ("downloads", "proxy", DownloadMode("stream")),
        ("downloads", "x-sendfile", DownloadMode("x-sendfile")),
        ("downloads", "x-accel-redirect:/p", DownloadMode("x-accel-redirect", "/p/")),
        ("downloads", "x-accel-redirect:/p/", DownloadMode("x-accel-redirect", "/p/")),
        ("inline_types", "A/B, c/d", frozenset({"a/b", "c/d"})),
        ("inline_types", "none", frozenset()),
        ("inline_types", "audio/* image/png", frozenset({"audio/*", "image/png"})),
        ("file_mode", "0640", 0o640),
        ("file_mode", "0400", 0o400),
        ("file_mode", 640, 0o640),
        ("signed_url_ttl", "60", 60),
        ("linger", "90s", 90),
        ("linger", "1.5m", 90),
        ("linger", "2h", 7200),
        ("linger", "1d", 86400),
        ("linger", 5, 5),
        ("former_base_urls", "https://a.example http://b.example/x", "two"),
        ("body_timeout", "0", 0),
        ("body_timeout", 45, 45),
        ("body_timeout", "1.5", 1.5),
        ("body_timeout", "90s", 90),
        ("body_timeout", "30m", 1800),
        ("body_timeout", "1h", 3600),
        ("body_timeout", "7d", 7 * 86400),
        ("body_min_rate", 0, 0),
        ("body_min_rate", "512", 512),
        ("body_min_rate", "64K", 65536),
        ("body_min_rate", "1M", 2**20),
        ("body_min_rate", "2G", 2**31),
        ("signed_url_ttl", "1", 1),
        ("signed_url_ttl", "604800", 604800),
        ("aws.port", "65535", 65535),
        ("aws.num_retries", "1", 1),
        ("aws.timeout", "0.5", 0.5),
        ("aws.timeout", "600", 600),
        ("aws.storage_class", "STANDARD_IA", "STANDARD_IA"),
        ("aws.encryption", "AES256", "AES256"),
        ("aws.encryption", "aws:kms", "aws:kms"),
        ("gcloud.storage_class", "COLDLINE", "COLDLINE"),
        ("gcloud.kms_key", KMS_KEY, KMS_KEY),
        ("storage", "default", ""),
    ],
)
def test_values(name: str, value: Any, parsed: Any) -> None:
    found = parse(**{name: value})["max_size" if name == "max_size_bytes" else name]
    if parsed == "two":
        assert found == ("https://a.example/", "http://b.example/x/")
    elif parsed is None:
        assert {"jpg", "png", "txt"} < found
    else:
        assert found == parsed


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("public", "maybe", "true or false"),
        ("randomize", "2", "true or false"),
        ("max_size", "10MB", "whole number"),
        ("max_size", "1.5", "whole number"),
        ("max_size", "-1", "negative"),
        ("min_size", "-1", "negative"),
        ("content_encodings", "br", "gzip or none"),
        ("signed_url_ttl", "soon", "whole number"),
        ("linger", "soon", "90s"),
        ("linger", "-1", "90s"),
        ("former_base_urls", "files/", "http"),
        ("former_base_urls", "https://a.example/?x", "http"),
        ("signed_url_ttl", "0", "1 to 604800"),
        ("signed_url_ttl", "604801", "1 to 604800"),
        ("signed_url_ttl", "-1", "negative"),
        ("aws.port", "0", "1 to 65535"),
        ("aws.port", "65536", "1 to 65535"),
        ("aws.num_retries", "0", "1 to 10"),
        ("aws.num_retries", "11", "1 to 10"),
        ("aws.timeout", "601", "600"),
        ("gcloud.timeout", "0", "more than 0"),
        ("gcloud.timeout", "601", "600"),
        ("aws.timeout", "inf", "600"),
        ("extensions", "+", "`any`"),
        ("extensions", " + ", "`any`"),
        ("extensions", "images+", "`any`"),
        ("extensions", "+images", "`any`"),
        ("extensions", "images++txt", "`any`"),
        ("extensions", "any+txt", "`any`"),
        ("extensions", "txt any", "`any`"),
        ("extensions", ".", "'.'"),
        ("extensions", "*", "'*'"),
        ("extensions", "*.txt", "'*.txt'"),
        ("extensions", "tar.gz", "'tar.gz'"),
        ("extensions", "txt,md", "'txt,md'"),
        ("inline_types", ",", "`none`"),
        ("inline_types", "*/*", "'*/*'"),
        ("inline_types", "*", "'*'"),
        ("inline_types", "image", "'image'"),
        ("inline_types", "image/", "'image/'"),
        ("inline_types", "none image/png", "'none'"),
        ("aws.timeout", "0", "more than 0"),
        ("aws.part_size", "5242879", "5 MiB"),
        ("aws.part_size", "5368709121", "5 GiB"),
        ("aws.part_size", "8 MiB", "whole number"),
        ("aws.timeout", "nan", "more than 0"),
        ("aws.timeout", "slow", "seconds"),
        *(
            ("body_timeout", value, "such as 90s, 30m, 1h or 7d")
            for value in ("soon", "-1s", "1 week", "1s2", "nan", "s", "٣s")
        ),
        *(
            ("body_min_rate", value, "like 512, 64K, 10M or 1G")
            for value in ("1.5K", "-1", "64KB", "64 K", "fast", "K", "٣")
        ),
        ("body_timeout", "999999d", "100 years"),
        ("file_mode", "rw-r--r--", "octal"),
        ("file_mode", "0888", "octal"),
        ("file_mode", "0000", "read"),
        ("file_mode", "0066", "read"),
        ("mimetypes", ".txt:text/plain;;.a:b/c", "''"),
        ("mimetypes", "txt:text/plain", "'txt:text/plain'"),
        ("mimetypes", ".txt", "'.txt'"),
        ("mimetypes", ".txt:text", "'text'"),
        ("mimetypes", ".txt:text/plain\r\nX: y", "type/subtype"),
        ("folder", "{bucket}", "{bucket}"),
        ("folder", "{record_id}", "{record_id}"),
        ("folder", "{0}", "{0}"),
        ("folder", "{", "brace"),
        ("folder", "{bucket_id.__class__}", "{bucket_id.__class__}"),
        ("folder", "{bucket_id!r}", "{bucket_id}"),
        ("folder", "../up", "relative"),
        ("folder", "a/../../b", "relative"),
        ("folder", "a//b", "relative"),
        ("folder", ".hidden", "relative"),
        ("folder", "a\\b", "relative"),
        ("folder", "a\x00b", "relative"),
        ("folder", "x" * 300, "relative"),
        ("filename_pattern", "{name}", "{name}"),
        ("filename_pattern", "{filename", "brace"),
        ("filename_pattern", "a/{filename}", "slash"),
        ("filename_pattern", "{datetime:%Y}", "{datetime}"),
        ("aws.storage_class", "GLACIER", "restored"),
        ("aws.storage_class", "DEEP_ARCHIVE", "restored"),
        ("aws.storage_class", "STANDARD IA", "such as STANDARD_IA"),
        ("aws.encryption", "aws", "AES256 or aws:kms"),
        ("aws.kms_key_id", "a key", "ARN"),
        ("gcloud.storage_class", "STANDARD_IA", "NEARLINE"),
        ("gcloud.kms_key", "my-key", "projects/P/"),
        ("storage", "Cold", "lower-case"),
        ("storage", "cold", "no storage"),
        ("downloads", "teleport", "stream"),
        ("downloads", "x-accel-redirect", "/prefix/"),
        ("downloads", "x-accel-redirect:files", "/prefix/"),
        ("downloads", "x-sendfile:/files/", "/prefix/"),
    ],
)
def test_bad_values_are_named(name: str, value: str, said: str) -> None:
    message = refusal(**{name: value})
    assert message.startswith(f"kinto.attachment.{name}: ")
    assert said in message


@pytest.mark.parametrize(
    "option",
    # An empty base_url means relative locations.
    [option for option in OPTIONS if option.parse is not base_url],
    ids=lambda option: option.name,
)
def test_left_empty_is_not_set(option: Option) -> None:
    storage = {"aws.bucket_name": "b"} if option.name == "base_path" else LOCAL
    assert parse(storage, **{option.name: " "})[option.name] == parse(storage)[option.name]


class TestUnknownNames:
    @pytest.mark.parametrize(
        ("name", "likely"),
        [
            ("max_sise", "kinto.attachment.max_size"),
            ("keep_old_file", "kinto.attachment.keep_old_files"),
            ("aws.bucketname", "kinto.attachment.aws.bucket_name"),
            ("resources.b.folders", "kinto.attachment.resources.b.folder"),
            ("resources.b.c.foldr", "kinto.attachment.resources.b.c.folder"),
        ],
    )
    def test_come_with_the_likely_one(self, name: str, likely: str) -> None:
        message = refusal(**{name: "1"})
        assert f"kinto.attachment.{name} is not a setting" in message
        assert f"Did you mean {likely}?" in message

    def test_far_from_any(self) -> None:
        message = refusal(xyzzy="1")
        assert message == "kinto.attachment.xyzzy is not a setting of kinto_attachment"

    @pytest.mark.parametrize("name", ["base_url", "public", "downloads", "base_path"])
    def test_of_the_whole_server_in_a_resource(self, name: str) -> None:
        message = refusal(**{f"resources.b.{name}": "1"})
        assert f"kinto.attachment.resources.b.{name}" in message
        assert "for a bucket or collection" in message

    @pytest.mark.parametrize(
        "name", ["resources.folder", "resources.b.c.d.folder", "resources..folder"]
    )
    def test_of_resources_that_are_none(self, name: str) -> None:
        message = refusal(**{name: "1"})
        assert f"kinto.attachment.{name}" in message


class TestStorages:
    def test_none(self) -> None:
        message = refusal({})
        assert "kinto.attachment.base_path" in message
        assert "(set: none)" in message

    def test_two(self) -> None:
        message = refusal(**{"aws.bucket_name": "b"})
        assert "kinto.attachment.base_path and kinto.attachment.aws.bucket_name" in message

    def test_an_empty_one_is_none(self) -> None:
        assert (
            parse({"base_path": "", "aws.bucket_name": "b"}).storages[""].backend
            == "aws.bucket_name"
        )

    def test_by_another_name(self) -> None:
        assert parse({"aws.bucket": "b"})["aws.bucket_name"] == "b"

    def test_by_both_names(self) -> None:
        assert parse({"aws.bucket": "b", "aws.bucket_name": "b"})["aws.bucket_name"] == "b"
        message = refusal({"aws.bucket": "a", "aws.bucket_name": "b"})
        assert "kinto.attachment.aws.bucket_name and kinto.attachment.aws.bucket" in message

    def test_half_of_a_pair_of_keys(self) -> None:
        message = refusal({"aws.bucket_name": "b", "aws.access_key": "A"})
        assert "kinto.attachment.aws.secret_key" in message

    @pytest.mark.parametrize(
        ("storage", "mode"),
        [(LOCAL, "redirect"), ({"aws.bucket_name": "b"}, "x-sendfile")],
    )
    def test_with_downloads_that_they_cannot_do(self, storage: dict[str, str], mode: str) -> None:
        with pytest.raises(ConfigurationError, match=r"kinto\.attachment\.downloads: "):
            application.make_app({**storage, "downloads": mode}, application.MEMORY)

    @pytest.mark.parametrize(
        "storage", [LOCAL, {"aws.bucket_name": "b"}, {"gcloud.bucket_name": "b"}]
    )
    @pytest.mark.parametrize("ttl", ["0", "604801"])
    def test_with_urls_that_no_storage_would_sign(self, storage: dict[str, str], ttl: str) -> None:
        assert "kinto.attachment.signed_url_ttl" in refusal(storage, signed_url_ttl=ttl)


class TestSeveralStorages:
    """``storages.NAME.`` before the settings of a storage creates another one."""

    COLD = {**LOCAL, "storages.cold.base_path": "/tmp/cold"}

    def test_each_has_its_own_options_and_inherits_none(self) -> None:
        settings = parse(
            self.COLD,
            **{
                "public": "true",
                "base_url": "https://cdn.example.com",
                "storages.cold.signed_url_ttl": "60",
                "storages.cold.downloads": "x-sendfile",
                "storages.warm.aws.bucket": "b",
                "storages.warm.former_base_urls": "https://old.example.com",
            },
        )
        default, cold, warm = (settings.storages[name] for name in ("", "cold", "warm"))
        assert (default["public"], cold["public"]) == (True, False)
        assert (default["base_url"], cold["base_url"]) == ("https://cdn.example.com/", None)
        assert (default["signed_url_ttl"], cold["signed_url_ttl"]) == (300, 60)
        assert cold["downloads"] == DownloadMode("x-sendfile")
        assert (cold.backend, warm.backend) == ("base_path", "aws.bucket_name")
        assert warm["former_base_urls"] == ("https://old.example.com/",)
        assert settings["base_path"] == default["base_path"] == "/tmp/files"

    def test_are_chosen_by_name(self) -> None:
        chosen = {"storage": "cold", "resources.b.c.storage": "default"}
        settings = parse(self.COLD, **chosen)
        assert settings.for_collection("b", "d").storage == "cold"
        assert settings.for_collection("b", "c").storage == ""

    @pytest.mark.parametrize(
        "setting", ["storage", "resources.b.storage", "resources.b.c.storage"]
    )
    def test_an_unknown_one_is_named(self, setting: str) -> None:
        message = refusal(self.COLD, **{setting: "colt"})
        assert message == (
            f"kinto.attachment.{setting}: there is no storage 'colt' (default, cold). "
            "Did you mean cold?"
        )

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("storages.cold.base_pth", "Did you mean kinto.attachment.storages.cold.base_path?"),
            ("storages.cold.folder", "is not a setting of kinto_attachment for a storage"),
            ("storages.cold.max_size", "is not a setting of kinto_attachment for a storage"),
            ("storages.cold.storage", "is not a setting of kinto_attachment for a storage"),
            ("storages.base_path", "should be kinto.attachment.storages.STORAGE.NAME"),
            ("storages.cold", "should be kinto.attachment.storages.STORAGE.NAME"),
            ("storages.cold.", "should be kinto.attachment.storages.STORAGE.NAME"),
            ("storages.default.public", "default storage is kinto.attachment.public"),
            *(
                (f"storages.{name}.public", "lower-case letters and digits")
                for name in ("Cold", "a_b", "a-b", "1a", "", "é", "x" * 33)
            ),
        ],
    )
    def test_bad_names_are_named(self, name: str, said: str) -> None:
        message = refusal(self.COLD, **{name: "1"})
        assert message.startswith(f"kinto.attachment.{name}")
        assert said in message

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"warm.public": "true"}, "kinto.attachment.storages.warm.base_path, "),
            ({"warm.public": "true"}, "(set: none)"),
            ({"cold.aws.bucket_name": "b"}, "storages.cold.base_path and kinto.attachment.stor"),
            ({"warm.aws.bucket": "b", "warm.aws.bucket_name": "c"}, "disagree"),
            ({"cold.public": "maybe"}, "kinto.attachment.storages.cold.public: should be true"),
            ({"cold.backend.x": "1"}, "names, which is not set"),
            ({"cold.aws.access_key": "k"}, "kinto.attachment.storages.cold.aws.secret_key"),
            ({"cold.aws.kms_key_id": "k"}, "needs kinto.attachment.storages.cold.aws.encryption"),
            ({"cold.base_url": ""}, "kinto.attachment.storages.cold.base_url is empty"),
        ],
    )
    def test_each_is_checked(self, options: dict[str, str], said: str) -> None:
        message = refusal(self.COLD, **{f"storages.{name}": v for name, v in options.items()})
        assert said in message

    def test_of_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("KINTO_ATTACHMENT_STORAGES_COLD_BASE_PATH", "/tmp/colder")
        monkeypatch.setenv("KINTO_ATTACHMENT_STORAGES_WARM_AWS_BUCKET_NAME", "b")
        monkeypatch.setenv("KINTO_ATTACHMENT_STORAGES_OWN_BACKEND", "package.module.Class")
        monkeypatch.setenv("KINTO_ATTACHMENT_STORAGES_OWN_BACKEND_ADDRESS", "here")
        monkeypatch.setenv(
            "KINTO_ATTACHMENT_STORAGES_ODD_NO_SETTING", "ignored, as all others are"
        )
        storages = parse(self.COLD).storages
        assert set(storages) == {"", "cold", "own", "warm"}
        assert storages["cold"]["base_path"] == "/tmp/colder"
        assert storages["warm"].backend == "aws.bucket_name"
        assert storages["own"].backend_options(["address"]) == {"address": "here"}

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"cold.base_path": "{}/files"}, "base_path and kinto.attachment.storages.cold"),
            ({"cold.base_path": "{}/files/"}, "a place of its own"),
            ({"cold.base_path": "{}/files/below"}, "a place of its own"),
            ({"cold.base_path": "{}"}, "a place of its own"),
            ({"cold.base_path": "{}/link"}, "a place of its own"),
            (
                {"cold.aws.bucket_name": "b", "warm.aws.bucket_name": "b", "warm.aws.region": "r"},
                "storages.cold.aws.bucket_name and kinto.attachment.storages.warm.aws.bucket_name",
            ),
            (
                {
                    "cold.aws.bucket_name": "b",
                    "cold.aws.endpoint_url": "http://S3.example.com",
                    "warm.aws.bucket_name": "b",
                    "warm.aws.host": "s3.example.com",
                    "warm.aws.port": "80",
                    "warm.aws.is_secure": "false",
                },
                "a place of its own",
            ),
            ({"cold.gcloud.bucket_name": "b", "warm.gcloud.bucket_name": "b"}, "a place"),
            (
                {
                    "cold.base_path": "{}/cold",
                    "cold.downloads": "x-accel-redirect:/a/",
                    "warm.base_path": "{}/warm",
                    "warm.downloads": "x-accel-redirect:/a/b",
                },
                "cold.downloads and kinto.attachment.storages.warm.downloads: each",
            ),
        ],
    )
    def test_that_share_a_place_are_refused(
        self, options: dict[str, str], said: str, tmp_path: Path
    ) -> None:
        (tmp_path / "files").mkdir()
        (tmp_path / "link").symlink_to(tmp_path / "files")
        given = {f"storages.{name}": v.format(tmp_path) for name, v in options.items()}
        with pytest.raises(ConfigurationError) as refused:
            application.make_app(
                {"base_path": str(tmp_path / "files"), **given}, application.MEMORY
            )
        assert said in str(refused.value)

    def test_side_by_side_are_not(self, tmp_path: Path) -> None:
        options = {
            "base_path": str(tmp_path / "files"),
            "storages.cold.base_path": str(tmp_path / "files2"),
            "storages.warm.aws.bucket_name": "b",
            "storages.hot.aws.bucket_name": "b2",
            "storages.other.aws.bucket_name": "b",
            "storages.other.aws.endpoint_url": "http://127.0.0.1:1",
            "storages.google.gcloud.bucket_name": "b",
        }
        application.make_app(options, application.MEMORY)

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            (
                {"aws.bucket_name": "b", "aws.port": "1"},
                "cold.aws.port needs kinto.attachment.sto",
            ),
            ({"aws.bucket_name": "b", "aws.storage_class": "COLD"}, "aws.storage_class: 'COLD'"),
            ({"gcloud.bucket_name": "b", "gcloud.acl": "nope"}, "storages.cold.gcloud.acl"),
            ({"backend": "no.Class"}, "kinto.attachment.storages.cold.backend: cannot import"),
            ({"base_path": "/tmp/cold", "downloads": "redirect"}, "storages.cold.downloads: redi"),
        ],
    )
    def test_errors_of_backends_name_the_storage(
        self, options: dict[str, str], said: str, tmp_path: Path
    ) -> None:
        given = {f"storages.cold.{name}": value for name, value in options.items()}
        with pytest.raises(ConfigurationError) as refused:
            application.make_app({"base_path": str(tmp_path), **given}, application.MEMORY)
        assert said in str(refused.value)


class TestResources:
    def test_the_narrowest_wins(self) -> None:
        settings = parse(
            **{
                "folder": "server",
                "max_size": "1",
                "resources.b.folder": "bucket",
                "resources.b.max_size": "2",
                "resources.b.c.folder": "collection",
                "resources.b.c.keep_old_files": "true",
            }
        )

        def folder(bucket: str, collection: str) -> str:
            pattern = settings.for_collection(bucket, collection).folder
            assert pattern is not None
            return pattern.text

        assert folder("a", "c") == "server"
        assert folder("b", "d") == "bucket"
        assert folder("b", "c") == "collection"
        assert settings.for_collection("b", "c").max_size == 2
        assert settings.for_collection("b", "c").keep_old_files
        assert not settings.for_collection("b", "d").keep_old_files

    @pytest.mark.parametrize(
        ("narrow", "wide"),
        [
            ({"max_size": "1"}, {"min_size": "2"}),
            ({"resources.b.c.max_size": "1"}, {"min_size": "2"}),
            ({"resources.b.c.max_size": "1"}, {"resources.b.min_size": "2"}),
            ({"resources.b.max_size": "1"}, {"resources.b.c.min_size": "2"}),
        ],
    )
    def test_no_size_is_left(self, narrow: dict[str, str], wide: dict[str, str]) -> None:
        message = refusal(**narrow, **wide)
        for name in (*narrow, *wide):
            assert f"kinto.attachment.{name}" in message
        parse(**dict.fromkeys(narrow, "0"), **wide)

    def test_zero_lifts_a_limit(self) -> None:
        settings = parse(**{"max_size": "1", "resources.b.c.max_size": "0"})
        assert settings.for_collection("b", "c").max_size == 0

    def test_take_other_names_too(self) -> None:
        settings = parse(**{"resources.b.max_size_bytes": "5"})
        assert settings.for_collection("b", "c").max_size == 5

    def test_both_names_disagree(self) -> None:
        message = refusal(**{"resources.b.max_size_bytes": "5", "resources.b.max_size": "6"})
        assert "disagree" in message

    @pytest.mark.parametrize(("name", "value"), [("max_size", "big"), ("extensions", "")])
    def test_bad_values_are_named(self, name: str, value: str) -> None:
        message = refusal(**{f"resources.b.c.{name}": value})
        assert message.startswith(f"kinto.attachment.resources.b.c.{name}: ")

    @pytest.mark.parametrize(
        "name",
        [each.name for each in OPTIONS if each.per_collection and "quota" not in each.name],
    )
    def test_each_can_be_set(self, name: str, tmp_path: Path) -> None:
        values = {
            "folder": "{bucket_id}/x",
            "randomize": "false",
            "filename_pattern": "{rid}-{filename}",
            "keep_old_files": "true",
            "max_versions": "3",
            "kept_max_age": "30d",
            "max_age": "1h",
            "versions_permission": "read",
            "linger": "30m",
            "extensions": "any",
            "mimetypes": ".a:a/b",
            "max_size": "7",
            "min_size": "7",
            "gzipped": "true",
            "content_encodings": "gzip",
            "client_metadata": "ignore",
            "delete_on_omission": "false",
            "locked": "true",
            "hold": "30d",
            "direct": "false",
            "inline_types": "a/b",
            "storage": "cold",
        }
        storage = {**LOCAL, "storages.cold.base_path": "/tmp/cold"}
        settings = parse(storage, **{f"resources.b.c.{name}": values[name]})
        narrow, wide = settings.for_collection("b", "c"), settings.for_collection("b", "d")
        assert getattr(narrow, name) != getattr(wide, name)


class TestQuotas:
    def of(self, settings: Settings, scope: str, *, is_default: bool = False) -> tuple[int, int]:
        found = settings.quotas.of(scope, is_default=is_default)
        assert bool(found) == bool(found.bytes or found.files)
        return found.bytes, found.files

    def test_are_of_buckets_and_of_collections(self) -> None:
        settings = parse(
            {
                **LOCAL,
                "quota_bytes": "2K",
                "resources.b.quota_bytes": "1M",
                "resources.b.c.quota_bytes": "9",
                "resources.b.c.quota_files": "4",
            }
        )
        assert self.of(settings, "/buckets/a") == (2048, 0)
        assert self.of(settings, "/buckets/a/collections/c") == (0, 0)
        assert self.of(settings, "/buckets/b") == (2**20, 0)
        assert self.of(settings, "/buckets/b/collections/c") == (9, 4)
        assert self.of(settings, "/buckets/b/collections/d") == (0, 0)

    def test_of_default_buckets(self) -> None:
        settings = parse({**LOCAL, "resources.default.quota_files": "3"})
        bucket_id = "0d16ed36-0d0f-5e48-8a0f-1d4b1ae4f4e5"
        assert self.of(settings, f"/buckets/{bucket_id}", is_default=True) == (0, 3)
        assert self.of(settings, f"/buckets/{bucket_id}") == (0, 0)
        assert settings.quotas.counted(bucket_id, "c") == (f"/buckets/{bucket_id}",)
        assert not settings.quotas.counted("b", "c")

    def test_that_lift_a_wider_one(self) -> None:
        settings = parse({**LOCAL, "quota_bytes": "2K", "resources.b.quota_bytes": "0"})
        assert self.of(settings, "/buckets/b") == (0, 0)
        assert not settings.quotas.counted("b", "c")
        assert settings.quotas.counted("a", "c") == ("/buckets/a",)

    def test_are_not_counted_if_there_are_none(self) -> None:
        settings = parse({**LOCAL, "resources.b.c.quota_bytes": "0"})
        assert not settings.quotas
        assert not settings.quotas.counted("b", "c")


class TestEnvironment:
    def test_sets_what_the_file_does_not(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("KINTO_ATTACHMENT_AWS_BUCKET_NAME", "from-environment")
        monkeypatch.setenv("KINTO_ATTACHMENT_MAX_SIZE", "12")
        settings = parse({})
        assert settings["aws.bucket_name"] == "from-environment"
        assert settings["max_size"] == 12

    def test_overrides_the_file(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("KINTO_ATTACHMENT_BASE_PATH", "")
        monkeypatch.setenv("KINTO_ATTACHMENT_AWS_BUCKET_NAME", "b")
        assert parse().storages[""].backend == "aws.bucket_name"

    def test_names_are_kinto_s_own(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("KINTO_ATTACHMENT_BASE_URL", "https://cdn.example.com")
        app = application.make_app({"base_path": str(tmp_path)}, application.MEMORY)
        capability = app.get("/").json["capabilities"]["attachments"]
        assert capability["base_url"] == "https://cdn.example.com/"


@pytest.mark.parametrize(
    "options",
    [
        {"extensions": "+"},
        {"resources.b.extensions": "images+"},
        {"signed_url_ttl": "0"},
        {"signed_url_ttl": "604801"},
        {"inline_types": "*/*"},
        {"mimetypes": ".txt:text/plain;;.a:b/c"},
        {"folder": "{nope}"},
        {"filename_pattern": "{nope}"},
        {"max_size": "lots"},
        {"unknown": "1"},
        {"aws.bucket_name": "second"},
        {"resources.b.c.max_size": "lots"},
    ],
    ids=lambda options: next(iter(options)),
)
def test_what_is_wrong_stops_the_server_at_its_start(
    options: dict[str, str], tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match=r"kinto\.attachment\."):
        application.make_app({"base_path": str(tmp_path), **options}, application.MEMORY)


def test_settings_of_a_resource_start_the_server(tmp_path: Path) -> None:
    options = {
        "base_path": str(tmp_path),
        "resources.b.folder": "one",
        "resources.b.c.folder": "two",
    }
    app = application.make_app(options, application.MEMORY)
    application.put_collection(app)
    assert application.key_of(application.attach(app).json).startswith("two/")


def test_the_prefix_of_kinto_may_be_left_out(tmp_path: Path) -> None:
    # As in the settings that Kinto hands to its plugins.
    assert (
        Settings.parse({"attachment.base_path": str(tmp_path)}).storages[""].backend == "base_path"
    )


def test_readonly_is_kinto_s() -> None:
    settings = {"attachment.base_path": "/tmp/files", "readonly": "true"}
    assert Settings.parse(settings).readonly


class TestOfOtherReleases:
    """Settings of the kinto-attachment on PyPI work, or the error names the fix."""

    @pytest.mark.parametrize("comment", ["; kept", "# kept", " ;kept"])
    def test_a_comment_after_a_value(self, comment: str) -> None:
        with pytest.raises(ConfigurationError) as stopped:
            parse(keep_old_files=f"true  {comment}")
        assert str(stopped.value).endswith("Write: kinto.attachment.keep_old_files = true")

    def test_no_comment_is_blamed_for_a_wrong_value(self) -> None:
        with pytest.raises(ConfigurationError) as stopped:
            parse(keep_old_files="maybe ; not")
        assert "comment" not in str(stopped.value)

    def test_types_that_end_in_a_semicolon(self) -> None:
        types = parse(mimetypes=".ftl:application/vnd.fluent;.x:text/x; ")["mimetypes"]
        assert types == {".ftl": "application/vnd.fluent", ".x": "text/x"}

    def test_content_encoding(self) -> None:
        with pytest.raises(ConfigurationError, match=r"use_content_encoding: delete this line"):
            parse(use_content_encoding="true")

    @pytest.mark.parametrize("where", ["", "resources.b.", "resources.b.c."])
    def test_a_random_name_that_would_not_be_part_of_the_name(self, where: str) -> None:
        with pytest.raises(ConfigurationError) as stopped:
            parse(**{f"{where}filename_pattern": "{rid}"})
        assert str(stopped.value).startswith(f"kinto.attachment.{where}filename_pattern: with")
        parse(**{f"{where}filename_pattern": "{rid}", f"{where}randomize": "false"})

    def test_relative_locations_without_an_address(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        application.make_app({"base_path": str(tmp_path), "base_url": ""}, application.MEMORY)
        assert "Set extra.base_url" in caplog.text
        caplog.clear()
        told = {"extra.base_url": "https://cdn.example.org/"}
        application.make_app(
            {"base_path": str(tmp_path), "base_url": "", **told}, application.MEMORY
        )
        assert "extra.base_url" not in caplog.text
