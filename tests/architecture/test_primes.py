"""The test for primes agrees with a sieve, and with division where a sieve does not reach."""

from __future__ import annotations

from itertools import islice
from math import isqrt

from moe_cap.architecture.primes import is_prime, primes_from


def by_division(number: int) -> bool:
    return number > 1 and all(number % divisor for divisor in range(2, isqrt(number) + 1))


def test_small_primes_equal_division() -> None:
    assert [n for n in range(5000) if is_prime(n)] == [n for n in range(5000) if by_division(n)]


def test_primes_after_twenty_million_equal_division() -> None:
    found = list(islice(primes_from(20_000_000), 5))
    assert found == [n for n in range(20_000_000, found[-1] + 1) if by_division(n)]


def test_strong_pseudoprimes_are_seen_through() -> None:
    assert not is_prime(3_215_031_751)  # to bases 2, 3, 5, 7 (Pomerance, Selfridge, Wagstaff 1980)
    assert is_prime(2**61 - 1)
