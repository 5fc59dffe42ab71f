"""Any OpenAI-compatible server that already runs: measured from outside, its routing replayed on the same tokens.

Nothing is started and nothing is stopped here, so an endpoint cannot be asked for by a submission: whoever measures his
own deployment makes one, `EndpointEngine("http://host:8000/v1")`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from moe_cap.errors import ServerError
from moe_cap.measure.engines.base import Capabilities, LaunchSpec, Tokenizer
from moe_cap.measure.engines.dialect import agree_on_dialect, brief
from moe_cap.measure.engines.endpoint_session import Attachment, EndpointSession
from moe_cap.measure.engines.fingerprints import About
from moe_cap.measure.engines.hf_tokenizer import HubTokenizer
from moe_cap.measure.engines.openai_http import OpenAiHttp
from moe_cap.measure.load import Limits, Rules, Target
from moe_cap.measure.model_files import ModelFiles
from moe_cap.routing import RoutingSource


@dataclass(frozen=True, slots=True)
class EndpointEngine:
    """The engine as a description; see `moe_cap.measure.engines.base.Engine`.

    Attributes:
        url: base address, ends in /v1.
        model: name that the server serves the model under; None where it serves only one.
        headers: e.g. authorization; never published.
        rules: what is believed of a timed pass.
        read_tokenizer: the model's own, from its files.
        about: what the server told of itself already; it is asked where this is None.
        num_devices: on how many it is said to run.
    """

    url: str
    model: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    rules: Rules = field(default_factory=Rules)
    read_tokenizer: Callable[[ModelFiles], Tokenizer] = HubTokenizer
    name: str = "endpoint"
    about: About | None = None
    num_devices: int = 1

    def probe(self) -> Capabilities:
        """Whether somebody answers; what runs there is told by the session."""
        http = OpenAiHttp(self.url, self.headers, self.limits)
        try:
            http.models()
            reason, version = None, (self.about or http.about()).version
        except ServerError as error:
            reason, version = str(error), None
        return Capabilities(reason is None, reason, version, RoutingSource.REPLAY)

    def launch_spec(self, files: ModelFiles, precision: str) -> LaunchSpec:
        """Nothing is launched; the precision is what the server is said to run."""
        return LaunchSpec(files=files, precision=precision, options={"url": self.url})

    def start(self, spec: LaunchSpec, log: Path) -> EndpointSession:
        """Attach to the server; raises as `attach` does."""
        return EndpointSession(spec, log, self.attach(spec))

    def attach(self, spec: LaunchSpec) -> Attachment:
        """Find out how the server can be spoken to.

        Raises:
            EngineStartError: nobody answers there, or the model is not served.
            AccessDeniedError: the key is missing or wrong.
            ServerError: it answers badly.
            InvalidRunError: it counts other tokens than the model's own tokenizer.
        """
        http = OpenAiHttp(self.url, self.headers, self.limits)
        served = http.served(self.model)
        about = self.about or http.about()
        tokenizer = self.read_tokenizer(spec.files)
        headers = self.headers if about.keeps_connections else {**self.headers, "Connection": "close"}
        target = Target(self.url, served.name, headers=self.headers)
        dialect = agree_on_dialect(target, tokenizer, brief(self.limits))
        target = replace(target, running_usage=dialect.running_usage, extra=dialect.extra, headers=headers)
        return Attachment(http, about, served, tokenizer, target, dialect, self.limits, self.rules, self.num_devices)
