"""SHA-256 over several requests: a hash whose state can be saved, unlike that of hashlib.

The saved state is that between two blocks in FIPS 180-4 6.2. It depends neither on the machine nor
on the library, so any server can continue the hash of another one.
"""

from __future__ import annotations

import base64
import binascii
import ctypes
import hashlib
import importlib
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

FORMAT = "sha256-1:"  # The kind of the hash and the version of the format.
BLOCK = 64
CHECK = 8  # Bytes of the checksum at the end of a saved state.

# The eight words of the intermediate hash value, and the number of hashed bytes. The bytes after
# the last complete block follow.
_HEAD = struct.Struct(">8IQ")
# FIPS 180-4 5.3.3.
_START = (
    *(0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A),
    *(0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19),
)


class SavedHash(Protocol):
    """A SHA-256 that another process can continue."""

    def update(self, data: bytes) -> None: ...

    def hexdigest(self) -> str: ...

    def save(self) -> str:
        """The state, as ASCII text; see :func:`sha256`."""
        ...


def sha256(saved: str = "") -> SavedHash | None:
    """A new hash, or the saved one.

    None if no library on this machine supports it, or if ``saved`` is damaged or from another
    version of this program. Then the bytes have to be read again.
    """
    state = _State.parse(saved) if saved else _State()
    continued = libcrypto() or resumablesha256()
    return continued(state) if continued and state else None


@dataclass(frozen=True)
class _State:
    """The state of a SHA-256: ``tail`` are the bytes after the last complete block."""

    words: tuple[int, ...] = _START
    size: int = 0
    tail: bytes = b""

    @classmethod
    def parse(cls, saved: str) -> _State | None:
        """The state in a text from :meth:`__str__`; None if it is invalid or damaged."""
        if not saved.startswith(FORMAT):
            return None
        try:
            decoded = base64.b64decode(saved.removeprefix(FORMAT), validate=True)
        except (binascii.Error, ValueError):
            return None
        body, check = decoded[:-CHECK], decoded[-CHECK:]
        if len(body) < _HEAD.size or _checksum(body) != check:
            return None
        *words, size = _HEAD.unpack_from(body)
        tail = body[_HEAD.size :]
        return cls(tuple(words), size, tail) if len(tail) == size % BLOCK else None

    def __str__(self) -> str:
        body = _HEAD.pack(*self.words, self.size) + self.tail
        return FORMAT + base64.b64encode(body + _checksum(body)).decode("ascii")


def _checksum(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()[:CHECK]


Continued = Callable[[_State], SavedHash]


class _Context(ctypes.Structure):
    """SHA256_CTX of OpenSSL's ``sha.h``; those of LibreSSL and BoringSSL are the same."""

    _fields_ = (
        ("words", ctypes.c_uint32 * 8),
        ("low", ctypes.c_uint32),  # The number of bits, in two words.
        ("high", ctypes.c_uint32),
        ("tail", ctypes.c_ubyte * BLOCK),
        ("filled", ctypes.c_uint),
        ("digest_size", ctypes.c_uint),
        ("spare", ctypes.c_ubyte * 64),  # For a library whose structure is larger.
    )


class LibcryptoHash:
    """OpenSSL's SHA-256. ctypes releases the GIL during the calls."""

    def __init__(self, library: ctypes.CDLL, state: _State) -> None:
        self._library = library
        self._context = context = _Context()
        library.SHA256_Init(ctypes.byref(context))
        context.words[:] = state.words
        context.high, context.low = divmod(state.size * 8, 1 << 32)
        context.tail[: len(state.tail)] = state.tail
        context.filled = len(state.tail)

    def update(self, data: bytes) -> None:
        self._library.SHA256_Update(ctypes.byref(self._context), data, len(data))

    def hexdigest(self) -> str:
        context = _Context.from_buffer_copy(self._context)
        digest = ctypes.create_string_buffer(32)
        self._library.SHA256_Final(digest, ctypes.byref(context))
        return digest.raw.hex()

    def save(self) -> str:
        context = self._context
        size = (context.high << 32 | context.low) // 8
        return str(_State(tuple(context.words), size, bytes(context.tail[: context.filled])))


class ResumableHash:
    """The hash of the library ``resumablesha256``, which holds the GIL."""

    # Its pickled state: the block, the number of bytes in it, the number of bits before it, and
    # the words, with the memory layout of C.
    _LAYOUT = struct.Struct(f"@{BLOCK}sIQ8I")

    def __init__(self, library: Any, state: _State) -> None:
        self._hash = library.sha256()
        bits = (state.size - len(state.tail)) * 8
        self._hash.__setstate__(self._LAYOUT.pack(state.tail, len(state.tail), bits, *state.words))

    def update(self, data: bytes) -> None:
        self._hash.update(data)

    def hexdigest(self) -> str:
        digest: str = self._hash.hexdigest()
        return digest

    def save(self) -> str:
        block, filled, bits, *words = self._LAYOUT.unpack(self._hash.__getstate__())
        return str(_State(tuple(words), bits // 8 + filled, block[:filled]))


@cache
def libcrypto() -> Continued | None:
    """SHA-256 by the libcrypto of this machine; None if there is no usable one."""
    for library in _libcryptos():
        try:
            library.SHA256_Init.argtypes = (ctypes.c_void_p,)
            library.SHA256_Update.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t)
            library.SHA256_Final.argtypes = (ctypes.c_char_p, ctypes.c_void_p)
        except AttributeError:  # A build without OpenSSL's older functions, or not OpenSSL.
            continue
        continued = _bound(LibcryptoHash, library)
        if _works(continued):
            return continued
    return None


@cache
def resumablesha256() -> Continued | None:
    """SHA-256 by the library ``resumablesha256``; None if it is not installed."""
    try:
        library = importlib.import_module("resumablesha256")
    except ImportError:
        return None
    continued = _bound(ResumableHash, library)
    return continued if _works(continued) else None


def _bound(kind: Callable[[Any, _State], SavedHash], library: Any) -> Continued:
    return lambda state: kind(library, state)


def _libcryptos() -> Iterator[ctypes.CDLL]:
    # Symbols are also looked up in the libraries that a library is linked with. Names come last,
    # and only names with a version, because macOS ends processes that load libcrypto.dylib.
    names: list[str | None] = [None, "libcrypto.so.3", "libcrypto.so.1.1"]
    # Python may lack OpenSSL, or have it built in.
    with suppress(ImportError, AttributeError):
        names.insert(0, importlib.import_module("_hashlib").__file__)
    for name in names:
        try:
            yield ctypes.CDLL(name)
        except (OSError, TypeError):  # The latter is of None, on Windows.
            continue


def _works(continued: Continued) -> bool:
    """Whether the library's state has the expected layout."""
    try:
        begun = continued(_State())
        begun.update(bytes(BLOCK + 1))
        state = _State.parse(begun.save())
        if state is None or (state.size, state.tail) != (BLOCK + 1, bytes(1)):
            return False
        ended = continued(state)
    except (struct.error, AttributeError, TypeError, ValueError):
        return False
    ended.update(bytes(BLOCK))
    return ended.hexdigest() == hashlib.sha256(bytes(2 * BLOCK + 1)).hexdigest()
