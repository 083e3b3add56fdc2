from __future__ import annotations

import base64
import hashlib
import subprocess
import sys
import time
from collections.abc import Callable
from threading import Event, Thread

import pytest
from hypothesis import given, strategies as st

from kinto_attachment.http import saved_hashes
from kinto_attachment.http.saved_hashes import FORMAT, Continued, SavedHash, libcrypto, sha256
from tests.support import fips_180, waiting

KINDS = {"libcrypto": libcrypto, "resumablesha256": saved_hashes.resumablesha256}
# FIPS 180-2, appendix B; the first one is from NIST's test vectors.
VECTORS = [
    (b"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
    (b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
    (
        b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
    ),
    (b"a" * 1_000_000, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"),
]
# The largest size whose number of bits fits in 64 bits, and sizes around each carry below.
SIZES = [
    *(
        power + extra
        for power in (1 << 29, 1 << 32, 1 << 35, 1 << 40)
        for extra in (-64, -1, 0, 1)
    ),
    (1 << 61) - 130,
]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of the library that ``sha256`` uses during the test."""
    use(request.param, monkeypatch)
    return str(request.param)


def use(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    continued = KINDS[kind]()
    assert continued is not None, f"{kind} cannot be loaded: see the extra dev"
    for name in KINDS:
        choice: Callable[[], Continued | None] = lambda: None  # noqa: E731
        monkeypatch.setattr(saved_hashes, name, KINDS[name] if name == kind else choice)


def new(saved: str = "") -> SavedHash:
    made = sha256(saved)
    assert made is not None
    return made


def hash_of(data: bytes) -> SavedHash:
    made = new()
    made.update(data)
    return made


def test_the_arithmetic_of_the_standard() -> None:
    for data, digest in VECTORS[:3]:
        assert fips_180.sha256(data) == digest


@pytest.mark.usefixtures("kind")
class TestEachLibrary:
    @pytest.mark.parametrize(("data", "digest"), VECTORS, ids=lambda value: str(len(value)))
    def test_known_digests(self, data: bytes, digest: str) -> None:
        assert hash_of(data).hexdigest() == digest

    def test_saved_at_every_byte_of_three_blocks(self) -> None:
        data = bytes(range(193))
        for split in range(len(data) + 1):
            begun = hash_of(data[:split])
            ended = new(begun.save())
            ended.update(data[split:])
            assert ended.hexdigest() == hashlib.sha256(data).hexdigest()

    @given(pieces=st.lists(st.binary(max_size=200), max_size=8))
    def test_saved_after_every_piece(self, pieces: list[bytes]) -> None:
        saved = ""
        for piece in pieces:
            current = new(saved)
            current.update(piece)
            saved = current.save()
        assert new(saved).hexdigest() == hashlib.sha256(b"".join(pieces)).hexdigest()

    def test_goes_on_after_its_digest_and_its_state_were_asked_for(self) -> None:
        made = hash_of(b"a")
        assert made.hexdigest() == hashlib.sha256(b"a").hexdigest()
        assert new(made.save()).hexdigest() == made.hexdigest()
        made.update(b"bc")
        assert made.hexdigest() == VECTORS[1][1]

    @pytest.mark.parametrize("size", SIZES)
    def test_sizes_that_nobody_hashes_in_a_test(self, size: int) -> None:
        # The standard's own arithmetic, from a state whose message is unknown.
        words = tuple(range(1, 9))
        tail, rest = bytes(size % 64), bytes(range(100))
        made = new(str(saved_hashes._State(words, size, tail)))
        made.update(rest)
        again = new(made.save())
        assert again.hexdigest() == fips_180.sha256(tail + rest, words, size - len(tail))
        assert again.save() == made.save()

    def test_states_say_how_many_bytes_there_were(self) -> None:
        state = saved_hashes._State.parse(hash_of(bytes(1000)).save())
        assert state is not None
        assert (state.size, state.tail) == (1000, bytes(1000 % 64))


@pytest.mark.parametrize(("first", "second"), [tuple(KINDS), tuple(reversed(KINDS))])
def test_one_library_goes_on_where_another_has_ended(
    first: str, second: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = bytes(range(200))
    for split in range(len(data) + 1):
        use(first, monkeypatch)
        saved = hash_of(data[:split]).save()
        use(second, monkeypatch)
        assert hash_of(data[:split]).save() == saved
        ended = new(saved)
        ended.update(data[split:])
        assert ended.hexdigest() == hashlib.sha256(data).hexdigest()


def test_another_process_goes_on() -> None:
    saved = hash_of(b"x" * 100).save()
    program = (
        "import sys; from kinto_attachment.http.saved_hashes import sha256;"
        " made = sha256(sys.argv[1]); made.update(b'y' * 100); print(made.hexdigest())"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, saved],
        check=True,
        capture_output=True,
        text=True,
        timeout=waiting.SECONDS,
    )
    assert ended.stdout.strip() == hashlib.sha256(b"x" * 100 + b"y" * 100).hexdigest()


def decoded(saved: str) -> bytes:
    return base64.b64decode(saved.removeprefix(FORMAT))


def encoded(state: bytes) -> str:
    return FORMAT + base64.b64encode(state).decode("ascii")


WHOLE = hash_of(bytes(100)).save()


class TestDamagedStates:
    @pytest.mark.parametrize(
        "saved",
        [
            "x",
            FORMAT,
            WHOLE.removeprefix(FORMAT),
            WHOLE.replace("sha256-1", "sha256-2"),
            WHOLE.replace("sha256", "sha512"),
            WHOLE[:-4],
            WHOLE + "AAAA",
            WHOLE + "\n",
            FORMAT + "!" + WHOLE.removeprefix(FORMAT),
            FORMAT + "é",
        ],
    )
    def test_texts_that_are_no_states(self, saved: str) -> None:
        assert sha256(saved) is None

    def test_every_single_bit(self) -> None:
        state = decoded(WHOLE)
        for bit in range(len(state) * 8):
            damaged = bytearray(state)
            damaged[bit // 8] ^= 1 << bit % 8
            assert sha256(encoded(bytes(damaged))) is None

    @pytest.mark.parametrize("length", range(0, 80, 7))
    def test_a_tail_that_does_not_fit_the_size(self, length: int) -> None:
        state = saved_hashes._State(size=100, tail=bytes(length))
        assert (sha256(str(state)) is not None) == (length == 100 % 64)

    @given(st.text())
    def test_any_text(self, text: str) -> None:
        assert sha256(FORMAT + text) is None


def test_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KINDS:
        monkeypatch.setattr(saved_hashes, name, lambda: None)
    assert sha256() is None
    assert sha256(WHOLE) is None


def test_python_has_been_given_a_library_of_its_own_openssl() -> None:
    assert libcrypto() is not None


def test_the_interpreter_runs_on_while_libcrypto_hashes() -> None:
    """It is tried again if the machine is so busy that this thread gets no processor."""
    data = bytes(64 << 20)

    def turns() -> int:
        began, count = Event(), 0

        def work() -> None:
            made = new()
            began.set()
            made.update(data)

        thread = Thread(target=work)
        thread.start()
        assert began.wait(waiting.SECONDS)
        while thread.is_alive():
            count += 1
            time.sleep(0)
        return count

    waiting.until(lambda: turns() > 10)
