"""The system of a cell: where its engine is, which files describe its model, on which machine it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from ipaddress import ip_address
from typing import Protocol
from urllib.parse import urlsplit

from pydantic import JsonValue

from moe_cap.architecture import parse_config
from moe_cap.errors import DenseModelError, InvalidInputError, ProfileError, SubmissionError
from moe_cap.hardware import detect_machine
from moe_cap.hardware.detect import CPU_PROBED
from moe_cap.hardware.own_figures import read_own_figures
from moe_cap.measure.engines.base import LaunchSpec
from moe_cap.measure.engines.endpoint import EndpointEngine
from moe_cap.measure.engines.fingerprints import NOBODY, About
from moe_cap.measure.engines.launched import INSTALLED
from moe_cap.measure.engines.openai_http import OpenAiHttp
from moe_cap.measure.engines.registry import load_engine
from moe_cap.measure.evaluate import Job, Subject
from moe_cap.measure.load import Limits, Rules, Target
from moe_cap.measure.machine import MeasuredMachine, name_machine
from moe_cap.measure.model_files import ModelFiles, find_description, find_model
from moe_cap.measure.prompt_cache import NO_OPENING, Numbered, may_cache
from moe_cap.metrics.parallelism import Parallelism
from moe_cap.result import EngineRecord
from moe_cap.submission import Submission

ENDPOINT = "endpoint"
RULES = Rules()
"""What is believed of an endpoint's timed pass."""


class Place(Protocol):
    """Where the engine of a profile is."""

    @property
    def engine(self) -> str:
        """Name that the submissions carry."""

    def identity(self) -> JsonValue:
        """What tells this place from others, for fingerprints; known without asking anybody."""

    def may_have_given(self, record: EngineRecord) -> bool:
        """Whether an earlier result, whose engine described itself so, can be of what is there now."""

    def options(self) -> list[tuple[str, object]]:
        """Options of the command that name it."""

    def find_files(self, asked: Submission, token: str | None) -> ModelFiles:
        """The model, as far as it has to lie here."""

    def find(self, job: Job, files: ModelFiles, arguments: tuple[str, ...], num_devices: int | None) -> Subject:
        """The system of a cell."""


@dataclass(frozen=True, slots=True)
class Launched:
    """An engine of the registry, started here."""

    engine: str

    def identity(self) -> JsonValue:
        """Its name."""
        return {"engine": self.engine}

    def may_have_given(self, record: EngineRecord) -> bool:
        """Not where another version is installed by now; the fingerprint has all else that starts it."""
        installed = load_engine(self.engine).probe().version
        return installed is None or installed == record.arguments.get(INSTALLED, record.version)

    def options(self) -> list[tuple[str, object]]:
        """`--engine`."""
        return [("--engine", self.engine)]

    def find_files(self, asked: Submission, token: str | None) -> ModelFiles:
        """Weights and all."""
        return find_model(asked, token)

    def find(self, job: Job, files: ModelFiles, arguments: tuple[str, ...], num_devices: int | None) -> Subject:
        """The engine with the arguments appended to its own."""
        engine = load_engine(self.engine)
        spec = with_arguments(engine.launch_spec(files, job.submission.precision), self.engine, arguments)
        opening = Numbered(job.run_uuid) if may_cache(arguments) else NO_OPENING
        return Subject(files, engine, spec, arguments, num_devices, opening=opening)


@dataclass(frozen=True)
class Endpoint:
    """A server that runs already.

    Attributes:
        url: base address, ends in /v1.
        model: name that it serves the model under.
        replay: learn the routing by sending the tokens through transformers here, which takes the weights.
        remote: its machine is not this one, whatever the address says.
        headers: never recorded.
    """

    url: str
    model: str | None = None
    replay: bool = False
    remote: bool = False
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        try:
            parts = Target(self.url, self.model or "").split()
        except InvalidInputError as error:
            raise ProfileError(str(error), key="api_url") from error
        if parts.username or parts.password or parts.query:
            raise ProfileError("an address holds no key: put it into MOE_CAP_API_KEY", key="api_url")

    @property
    def engine(self) -> str:
        """No engine of the registry: a submission cannot ask for an address."""
        return ENDPOINT

    def identity(self) -> JsonValue:
        """Address, served name, and how the routing is had."""
        return {"url": self.url, "served": self.model, "replay": self.replay, "remote": self.remote}

    def may_have_given(self, record: EngineRecord) -> bool:
        """Not where the server says that it is another one by now; one that is gone says nothing."""
        return self._before_the_sweep.fits(record)

    @cached_property
    def _before_the_sweep(self) -> About:
        return introduction(OpenAiHttp(self.url, self.headers, self.limits))

    def options(self) -> list[tuple[str, object]]:
        """The address itself is nobody else's business."""
        found: list[tuple[str, object]] = [("--api-url", "http://HOST:PORT/v1"), ("--served-model", self.model)]
        return found + ([("--routing", "replay")] if self.replay else [])

    def find_files(self, asked: Submission, token: str | None) -> ModelFiles:
        """Configuration and tokenizer; the weights too for a replay."""
        return find_model(asked, token) if self.replay else find_description(asked, token)

    def find(self, job: Job, files: ModelFiles, arguments: tuple[str, ...], num_devices: int | None) -> Subject:
        """The server as an engine; nothing is started.

        It is asked once for each cell what it is, so that devices and record are of the same server, whichever answers
        at this address by then.

        Raises:
            EngineStartError: nobody answers there, or the model is not served.
            AccessDeniedError: the key is missing or wrong.
            ProfileError: arguments for a server that runs already, a remote machine that nobody named, or a number of
                devices that nobody tells or that the server tells otherwise.
        """
        if arguments:
            raise ProfileError(f"{self.url} runs already: it takes no engine arguments", key="engine_args")
        elsewhere = self.remote or not is_here(self.url)
        if elsewhere and job.submission.hardware is None:
            raise ProfileError(
                f"{self.url} is on another machine: say which with --hardware (see moe-cap hardware), and how many "
                "devices with --num-devices",
                key="hardware",
            )
        http = OpenAiHttp(self.url, self.headers, self.limits)
        http.served(self.model)
        about = introduction(http)
        number = self._num_devices(about.parallel, job.submission.hardware, num_devices, elsewhere=elsewhere)
        engine = EndpointEngine(self.url, self.model, self.headers, self.limits, RULES, about=about, num_devices=number)
        spec = engine.launch_spec(files, job.submission.precision)
        machine = named(job, number) if elsewhere else None
        return Subject(files, engine, spec, (), number, machine, opening=Numbered(job.run_uuid), ours=False)

    def _num_devices(
        self, spread: Parallelism | None, hardware: str | None, given: int | None, *, elsewhere: bool
    ) -> int:
        told = None if spread is None else spread.num_devices
        if None not in {told, given} and told != given:
            raise ProfileError(
                f"{self.url} says that it runs on {told} devices ({spread}), --num-devices says {given}: leave it out",
                key="num_devices",
            )
        number = told or given
        if number is None and hardware != CPU_PROBED and (elsewhere or hardware or len(detect_machine().gpus) > 1):
            raise ProfileError(
                f"{self.url} does not tell on how many devices it runs, by which peaks and costs are multiplied: say it"
                " with --num-devices (tensor parallel size x data parallel size x pipeline stages)",
                key="num_devices",
            )
        return number or 1


def introduction(http: OpenAiHttp) -> About:
    """What a server tells of itself; one that no fingerprint fits is asked again, for it may have been slow once."""
    about = http.about()
    return http.about() if about == NOBODY else about


def named(job: Job, num_devices: int) -> MeasuredMachine:
    """The machine that a submission names, which cannot be looked at from here."""
    own = read_own_figures(job.settings.machine) if job.settings.machine else None
    return name_machine(job.submission.hardware or "", num_devices, own)


def is_here(url: str) -> bool:
    """Whether an address is this machine's own."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def with_arguments(spec: LaunchSpec, name: str, arguments: tuple[str, ...]) -> LaunchSpec:
    """A launch specification with more arguments at the end of its command, verbatim.

    Raises:
        SubmissionError: the engine runs in this process and has no command.
    """
    if arguments and not spec.argv:
        raise SubmissionError(f"{name} runs in this process: it takes no engine arguments", field="engine_args")
    return replace(spec, argv=(*spec.argv, *arguments))


def refuse_dense(files: ModelFiles) -> None:
    """A dense model has nothing sparse to measure.

    Raises:
        DenseModelError: no layer has routed experts.
    """
    if not parse_config(files.config).moe_blocks:
        raise DenseModelError(
            f"{files.name} ({files.config.get('model_type')}) is dense: no layer has routed experts, so its sparse and "
            "its plain utilisation are the same; profile a mixture of experts"
        )
