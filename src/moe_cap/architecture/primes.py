"""Primes, which size hash tables."""

from __future__ import annotations

from collections.abc import Iterator

WITNESSES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)
"""Enough for every number below 3.3e24 (Sorenson and Webster 2015)."""


def is_prime(number: int) -> bool:
    """The Miller-Rabin test, exact for anything that a config can hold."""
    if number < 2:
        return False
    if any(number % witness == 0 for witness in WITNESSES):
        return number in WITNESSES
    odd, twos = number - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    return all(_passes(number, witness, odd, twos) for witness in WITNESSES)


def _passes(number: int, witness: int, odd: int, twos: int) -> bool:
    power = pow(witness, odd, number)
    if power in {1, number - 1}:
        return True
    for _ in range(twos - 1):
        power = power * power % number
        if power == number - 1:
            return True
    return False


def primes_from(start: int) -> Iterator[int]:
    """Every prime from `start` on, in order."""
    while True:
        if is_prime(start):
            yield start
        start += 1
