"""SHA-256 from the text of FIPS 180-4, from any state, to compare libraries with."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count, islice

MASK = 0xFFFFFFFF


def sha256(data: bytes, words: Iterable[int] = (), size_before: int = 0) -> str:
    """The digest, in hex, of a message that ends with ``data``.

    ``words`` are the intermediate hash value of the preceding ``size_before`` bytes, which are
    whole blocks.
    """
    value = list(words) or [_fraction(prime, 2) for prime in _primes(8)]
    bits = (size_before + len(data)) * 8
    padded = data + b"\x80" + bytes(-(len(data) + 9) % 64) + bits.to_bytes(8, "big")
    for start in range(0, len(padded), 64):
        value = _compress(value, padded[start : start + 64])
    return b"".join(word.to_bytes(4, "big") for word in value).hex()


def _compress(value: list[int], block: bytes) -> list[int]:
    w = [int.from_bytes(block[i : i + 4], "big") for i in range(0, 64, 4)]
    for t in range(16, 64):
        low = _rotated(w[t - 15], 7) ^ _rotated(w[t - 15], 18) ^ w[t - 15] >> 3
        high = _rotated(w[t - 2], 17) ^ _rotated(w[t - 2], 19) ^ w[t - 2] >> 10
        w.append((high + w[t - 7] + low + w[t - 16]) & MASK)
    a, b, c, d, e, f, g, h = value
    for t in range(64):
        sigma = _rotated(e, 6) ^ _rotated(e, 11) ^ _rotated(e, 25)
        first = h + sigma + (e & f ^ ~e & g) + K[t] + w[t]
        sigma = _rotated(a, 2) ^ _rotated(a, 13) ^ _rotated(a, 22)
        second = sigma + (a & b ^ a & c ^ b & c)
        a, b, c, d, e, f, g, h = (first + second) & MASK, a, b, c, (d + first) & MASK, e, f, g
    return [(x + y) & MASK for x, y in zip(value, (a, b, c, d, e, f, g, h), strict=True)]


def _rotated(word: int, by: int) -> int:
    return (word >> by | word << 32 - by) & MASK


def _primes(number: int) -> list[int]:
    found = (n for n in count(2) if all(n % d for d in range(2, int(n**0.5) + 1)))
    return list(islice(found, number))


def _fraction(prime: int, degree: int) -> int:
    """The first 32 bits of the fractional part of the prime's root, by integer arithmetic."""
    target, root = prime << 32 * degree, 0
    for bit in reversed(range(36)):
        if (root | 1 << bit) ** degree <= target:
            root |= 1 << bit
    return root & MASK


K = [_fraction(prime, 3) for prime in _primes(64)]
