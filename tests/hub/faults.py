"""What can go wrong on the way to the Hub, to be switched on by a test."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass
class Fault:
    """Answer `status` to the next `times` requests of `method` whose path contains `part`.

    `applied` carries the request out first: the commit happens and its answer is lost. `page` is answered as HTML, as a
    proxy does, in place of the Hub's own refusal.
    """

    method: str
    part: str
    status: int
    times: int = 1
    applied: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
    message: str = "injected"
    page: str | None = None


@dataclass
class Faults:
    """All that is switched on now.

    Attributes:
        stale_heads: so many looks at a branch still show the commit before its head.
        commit_s: how long a commit holds the repository's lock; others are answered 409 meanwhile.
        answer_s: pause before each answer, to provoke timeouts.
    """

    stale_heads: int = 0
    commit_s: float = 0.0
    answer_s: float = 0.0
    waiting: list[Fault] = field(default_factory=list)

    def add(self, method: str, part: str, status: int, **more: object) -> None:
        self.waiting.append(Fault(method, part, status, **more))  # type: ignore[arg-type]

    def take(self, method: str, path: str) -> Fault | None:
        for fault in self.waiting:
            if fault.times > 0 and fault.method == method and fault.part in path:
                fault.times -= 1
                return fault
        return None

    def takes_stale_head(self) -> bool:
        if self.stale_heads == 0:
            return False
        self.stale_heads -= 1
        return True
