"""Items and dictionaries of RFC 9651, with its own rules and examples."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from kinto_attachment.http.structured_fields import boolean, dictionary, integer


class TestBooleans:
    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("?1", True),
            ("?0", False),
            ("  ?1 ", True),
            ("?1;a", True),
            ("?0; a=1;b=?0", False),
            ('?1;a="x;\\"y"', True),
            ("?1;a=:YQ==:", True),
            ("?1;a=@-1659578233", True),
            ('?1;a=%"f%c3%bc"', True),
            ("?1;a=1.5;*b=*t/x", True),
        ],
    )
    def test_well_formed(self, field: str, value: bool) -> None:
        assert boolean(field) is value

    @pytest.mark.parametrize(
        "field",
        [
            *(None, "", " ", "?", "?2", "?T", "? 1", "1", "0", "true", "True", '"?1"', ":?1:"),
            *("?1, ?1", "?1,", "?11", "?1x", "?1;", "?1 ;a", "?1;A", "?1;a=", "?1;a=b c", "\t?1"),
            *("?1\t", "?1\n", "?1;a=é", '?1;a="é"', "?1;a=1234567890123456", "(?1)"),
        ],
    )
    def test_malformed(self, field: str | None) -> None:
        assert boolean(field) is None


class TestIntegers:
    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("0", 0),
            ("42", 42),
            ("-42", -42),
            ("-0", 0),
            ("00042", 42),
            ("999999999999999", 999_999_999_999_999),
            (" 8; a", 8),
        ],
    )
    def test_well_formed(self, field: str, value: int) -> None:
        assert integer(field) == value

    @pytest.mark.parametrize(
        "field",
        [
            *(None, "", "-", "--1", "+1", "1.0", "1.", "1e3", "1_0", "0x1", "?1", '"1"', "a"),
            *("1000000000000000", "1, 1", "1 2", "1,", "٣", "@1", "1\x00"),
        ],
    )
    def test_malformed(self, field: str | None) -> None:
        assert integer(field) is None


def test_dictionaries() -> None:
    assert dictionary({}) == ""
    assert dictionary({"max-size": 1000, "max-age": 5}) == "max-size=1000, max-age=5"
    assert dictionary({"max-size": 2**63 - 1}) == "max-size=999999999999999"


@given(st.text())
def test_any_text(field: str) -> None:
    assert boolean(field) is None or field.strip(" ").startswith(("?0", "?1"))
    value = integer(field)
    assert value is None or abs(value) < 10**15


@given(st.integers(-(10**15) + 1, 10**15 - 1))
def test_any_integer(value: int) -> None:
    assert integer(str(value)) == value
