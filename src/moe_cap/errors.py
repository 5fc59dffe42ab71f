"""Everything that can go wrong, named by what was wrong.

MoECapError
├── InvalidInputError                a caller gave something that cannot be used
│   ├── ConfigError                  a model's config.json
│   │   └── UnknownModelTypeError
│   ├── UnknownPrecisionError
│   ├── UnknownHardwareError
│   ├── MissingPeakError             the device has no such peak (fp8 on an A100)
│   ├── MissingPriceError
│   ├── MixedBasesError              costs of different bases were added or ranked together
│   ├── SubmissionError              carries the form field it belongs to
│   ├── ProfileError                 a profile's YAML or options; carries the key
│   │   └── UnknownDatasetError
│   ├── DenseModelError              a model without experts where a mixture was expected
│   ├── TraceError                   a routing trace broke an invariant
│   └── ResultError                  a result record that does not hold together
├── StoreError
│   ├── ConflictError                the store moved on: nothing was written
│   ├── BusyError                    refused before writing, try again after `wait_s`
│   ├── OutcomeUnknownError          the write may or may not have happened
│   ├── NotFoundError
│   ├── StoreAccessError             this token or user may not
│   └── AlreadyPublishedError        the id is taken by another content
├── QueueError
│   ├── DuplicateSubmissionError     points at the first
│   ├── RequestStateError            a request in this state cannot do that
│   ├── LeaseLostError               another worker has the request now
│   └── RecordError                  a file of the queue that is no request
└── MeasurementError                 a run that must not be published; `reason` is for people
    ├── EngineStartError
    ├── EngineCrashedError
    ├── OutOfMemoryError
    ├── RunTimeoutError
    ├── ServerError                  an endpoint answered badly: hung, garbage, 429, 5xx
    │   └── AccessDeniedError        401, 403: the key is missing or wrong
    ├── InvalidRunError              it ran, but the numbers cannot be trusted
    │   └── LateClientError          because the client was late: the server may be as fast as it likes
    └── AccuracyError                the harness could not score
"""

from __future__ import annotations


class MoECapError(Exception):
    """Root of all errors that this package raises on purpose."""


class InvalidInputError(MoECapError, ValueError):
    """A caller gave something that cannot be used; the message says what and what to do."""


class ConfigError(InvalidInputError):
    """A model's config.json misses a key or holds a value of the wrong kind; `key` names it."""

    def __init__(self, message: str, *, key: str | None = None) -> None:
        super().__init__(message)
        self.key = key


class UnknownModelTypeError(ConfigError):
    """No reader is registered for this `model_type`."""


class UnknownPrecisionError(InvalidInputError):
    """A number format or quantisation dialect that the accounting does not know."""


class UnknownHardwareError(InvalidInputError):
    """No device of this id in the catalogue and no probe of it either."""


class MissingPeakError(InvalidInputError):
    """The device has no peak for this compute dtype."""


class MissingPriceError(InvalidInputError):
    """No price is known for a part that the cost needs."""


class MixedBasesError(InvalidInputError):
    """Costs of different bases (paper, owner, rental) were added, compared or ranked together."""


class SubmissionError(InvalidInputError):
    """A submission that cannot be taken; `field` is the form field that is wrong."""

    def __init__(self, message: str, *, field: str) -> None:
        super().__init__(message)
        self.field = field


class ProfileError(InvalidInputError):
    """A profile's YAML file or options that cannot be used; `key` is the one that is wrong."""

    def __init__(self, message: str, *, key: str) -> None:
        super().__init__(message)
        self.key = key


class UnknownDatasetError(ProfileError):
    """Data that is not known here, or that cannot be scored here."""


class DenseModelError(InvalidInputError):
    """A model without experts was to be profiled as a mixture of experts."""


class TraceError(InvalidInputError):
    """A routing trace broke an invariant of docs/metrics.md, "Routing"."""


class ResultError(InvalidInputError):
    """A result record that cannot be read or does not hold together."""


class StoreError(MoECapError):
    """A store could not be read or written."""


class ConflictError(StoreError):
    """The store moved on since `parent`: nothing was written, plan again."""


class BusyError(StoreError):
    """The store refused before writing anything; try again after `wait_s` seconds."""

    def __init__(self, message: str, *, wait_s: float) -> None:
        super().__init__(message)
        self.wait_s = wait_s


class OutcomeUnknownError(StoreError):
    """The write may or may not have happened (lost answer, 5xx): read again before deciding."""


class NotFoundError(StoreError):
    """No such path at this revision."""


class StoreAccessError(StoreError):
    """The token or the user may not read, write or create this store; the message says what to set."""


class AlreadyPublishedError(StoreError):
    """Something else is published under this id already; what is published never changes."""


class QueueError(MoECapError):
    """The queue refused."""


class DuplicateSubmissionError(QueueError):
    """The same submission was made before; `request_id` is the first one and `state` its state."""

    def __init__(self, message: str, *, request_id: str, state: str) -> None:
        super().__init__(message)
        self.request_id = request_id
        self.state = state


class RequestStateError(QueueError):
    """A request in this state cannot do that, e.g. be cancelled after it finished; `state` is its state."""

    def __init__(self, message: str, *, state: str) -> None:
        super().__init__(message)
        self.state = state


class RecordError(QueueError):
    """A file of the queue cannot be used as a request; `path` says which, the message says why."""

    def __init__(self, message: str, *, path: str) -> None:
        super().__init__(message)
        self.path = path


class LeaseLostError(QueueError):
    """The lease ran out and another worker may have the request: stop, publish nothing."""


class MeasurementError(MoECapError):
    """A run that must not be published. The message is the reason that a person reads."""


class EngineStartError(MeasurementError):
    """The engine did not come up within its bounded start."""


class EngineCrashedError(MeasurementError):
    """The engine died in the middle of a run."""


class OutOfMemoryError(MeasurementError):
    """The engine or the host ran out of memory."""


class RunTimeoutError(MeasurementError):
    """The run did not end within its limit."""


class ServerError(MeasurementError):
    """An endpoint hung, streamed garbage, or answered with an error status."""


class AccessDeniedError(ServerError):
    """An endpoint wants a key, or another one than it was shown."""


class InvalidRunError(MeasurementError):
    """It ran, but a validity rule was broken, so the numbers cannot be trusted."""


class LateClientError(InvalidRunError):
    """The client could not keep up, so its times are not the server's; a quieter machine may give a run."""


class AccuracyError(MeasurementError):
    """The accuracy harness could not score this run."""
