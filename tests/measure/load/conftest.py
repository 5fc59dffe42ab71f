from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from moe_cap.measure.mock_script import Behaviour
from moe_cap.measure.mock_server import MockServer


@pytest.fixture
def serve() -> Iterator[Callable[[Behaviour], MockServer]]:
    with ExitStack() as stack:
        yield lambda behaviour: stack.enter_context(MockServer(behaviour))
