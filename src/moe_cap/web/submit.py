"""The Submit tab: a form, a pre-flight beside it, and one commit to the queue."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import gradio as gr

from moe_cap.errors import DuplicateSubmissionError, MoECapError, OutcomeUnknownError, SubmissionError
from moe_cap.hardware import all_devices
from moe_cap.offerings import ENGINES, TASKS, listed_engines
from moe_cap.submission import Submission, parse_submission
from moe_cap.web.form import parse_form
from moe_cap.web.pages import render
from moe_cap.web.snapshot import Mirror

EXAMPLE_MODEL = "./assets/cap-tiny-moe"
"""Ships here. Where folders cannot be named the form names none: any model of the Hub may be too large for a worker."""
EXAMPLE = {
    "model": EXAMPLE_MODEL, "engine": "transformers", "precision": "bf16", "tasks": ["cap_arithmetic"],
    "concurrency": "1, 4", "input_tokens": 32, "output_tokens": 32, "repeats": 1,
}  # fmt: skip


class Preflight(Protocol):
    """What `moe_cap.preflight.check` answers."""

    @property
    def problems(self) -> tuple[tuple[str, str], ...]:
        """Field and message of everything that stands in the way."""


class Submitter(Protocol):
    """What the tab may do to the queue."""

    def submit(self, body: Mapping[str, object], *, request_id: str) -> object:
        """Store a request, or raise DuplicateSubmissionError."""


@dataclass(frozen=True, slots=True)
class Desk:
    """Where a form is handed in: looks first, then stores; every answer is HTML for the panel and messages by field."""

    check: Callable[[Submission], Preflight]
    queue: Submitter
    mirror: Mirror

    def look(self, values: Mapping[str, object]) -> tuple[str, dict[str, str], Submission | None]:
        """Say what stands in the way, or what to expect; nothing is stored."""
        asked, problems = parse_form(values)
        if asked is None:
            return render("preflight.html", state="wrong", count=len(problems)), problems, None
        try:
            found = self.check(asked)
        except MoECapError as error:
            return render("preflight.html", state="trouble", trouble=str(error)), {}, None
        if found.problems:
            problems = dict(reversed(found.problems))
            others = [f"{name}: {message}" for name, message in found.problems if name not in values]
            panel = render("preflight.html", state="wrong", count=len(problems), found=found, others=others)
            return panel, problems, None
        return render("preflight.html", state="ready", found=found), {}, asked

    def hand_in(self, values: Mapping[str, object]) -> tuple[str, dict[str, str]]:
        """Look, and store the request if nothing stands in the way."""
        panel, problems, asked = self.look(values)
        if asked is None:
            return panel, problems
        try:
            request_id = self.store(asked)
        except DuplicateSubmissionError as error:
            return self._duplicate(error), {}
        except OutcomeUnknownError as error:
            return render("preflight.html", state="unknown", trouble=str(error)), {}
        except MoECapError as error:
            return render("preflight.html", state="trouble", trouble=str(error)), {}
        return render("preflight.html", state="stored", request_id=request_id), {}

    def take(self, body: Mapping[str, object]) -> str:
        """Hand in a body as a program sends it; the request's id.

        Raises:
            SubmissionError: names the field that is wrong, also when the pre-flight finds it.
            DuplicateSubmissionError: points at the first.
        """
        asked = parse_submission(body)
        for field, message in self.check(asked).problems:
            raise SubmissionError(f"{field}: {message}", field=field)
        return self.store(asked)

    def store(self, asked: Submission) -> str:
        """One commit to the queue; the request's id."""
        self.queue.submit(asked.model_dump(mode="json"), request_id=asked.id)
        self.mirror.look()
        return asked.id

    def _duplicate(self, error: DuplicateSubmissionError) -> str:
        first = next((each for each in self.mirror.look().requests if each.id == error.request_id), None)
        results = first.result_ids if first else ()
        return render(
            "preflight.html", state="duplicate", request_id=error.request_id, now=error.state, results=results
        )


def build_submit(desk: Desk, tabs: gr.Tabs, example: str | None) -> None:
    """Build the tab's widgets and connect them; `example` is the model that the form begins with."""
    with gr.Row(elem_classes="cap-form"):
        with gr.Column():
            fields, messages = _build_fields(example)
            with gr.Row():
                look = gr.Button("Check", variant="secondary", elem_id="cap-check")
                send = gr.Button("Submit", variant="primary", elem_id="cap-submit")
        with gr.Column():
            first = render("preflight.html", state="new", example=example)
            panel = gr.HTML(first, apply_default_css=False, elem_id="cap-preflight")
            show_queue = gr.Button("Open the queue", size="sm", elem_id="cap-open-queue")
    names, inputs, outputs = list(fields), list(fields.values()), [panel, *messages.values()]

    def spread(answer: str, problems: Mapping[str, str]) -> list[str]:
        return [answer, *(render("field_error.html", message=problems.get(name)) for name in names)]

    def on_look(*values: object) -> list[str]:
        answer, problems, _ = desk.look(dict(zip(names, values, strict=True)))
        return spread(answer, problems)

    def on_send(*values: object) -> list[str]:
        return spread(*desk.hand_in(dict(zip(names, values, strict=True))))

    quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    changes = [fields["model"].blur, fields["model"].submit, fields["concurrency"].blur, look.click]
    changes += [fields[name].change for name in ("engine", "precision", "tasks", "hardware")]
    changes += [fields[name].blur for name in ("revision", "input_tokens", "output_tokens")]
    gr.on(changes, on_look, inputs, outputs, trigger_mode="always_last", concurrency_limit=4, **quiet)
    send.click(on_send, inputs, outputs, concurrency_limit=4, **quiet)
    fields["engine"].change(_precisions_of, fields["engine"], fields["precision"], **quiet)
    show_queue.click(lambda: gr.Tabs(selected="queue"), None, tabs, **quiet)


def _precisions_of(engine: str) -> gr.Dropdown:
    offered = ENGINES[engine].precisions if engine in ENGINES else ()
    return gr.Dropdown(choices=list(offered))


def _build_fields(example: str | None) -> tuple[dict[str, Any], dict[str, gr.HTML]]:
    fields: dict[str, Any] = {}
    messages: dict[str, gr.HTML] = {}

    def field(name: str, component: Any) -> None:
        fields[name] = component
        messages[name] = gr.HTML("", apply_default_css=False, elem_id=f"cap-error-{name}")

    folder = f", or a folder of this machine such as {example}" if example else " such as Qwen/Qwen3-30B-A3B"
    model = gr.Textbox(example, label="Model", info=f"Hub id{folder}", max_lines=1, elem_id="cap-field-model")
    field("model", model)
    with gr.Row():
        with gr.Column(min_width=180):
            field("revision", _text("revision", "Revision", "Branch, tag or commit; empty for the default"))
        with gr.Column(min_width=180):
            engines = [(offer.title, offer.name) for offer in listed_engines()]
            field("engine", gr.Dropdown(engines, value=EXAMPLE["engine"], label="Engine", info="What serves the model"))
        with gr.Column(min_width=180):
            offered = list(ENGINES[str(EXAMPLE["engine"])].precisions)
            info = "Number format of the weights"
            field("precision", gr.Dropdown(offered, value=EXAMPLE["precision"], label="Precision", info=info))
    tasks = [(title, name) for name, title in TASKS.items()]
    field("tasks", gr.CheckboxGroup(tasks, value=EXAMPLE["tasks"], label="Accuracy tasks", info="None for speed only"))
    with gr.Row():
        with gr.Column(min_width=180):
            field("concurrency", _text("concurrency", "Requests in flight", "Levels, like 1, 4, 16"))
        with gr.Column(min_width=180):
            field("input_tokens", _number("input_tokens", "Input tokens", "Prompt length"))
        with gr.Column(min_width=180):
            field("output_tokens", _number("output_tokens", "Output tokens", "Answer length"))
    with gr.Accordion("More", open=False), gr.Row():
        with gr.Column(min_width=180):
            field("num_requests", _text("num_requests", "Requests per level", "Empty: enough for a steady window"))
        with gr.Column(min_width=180):
            field("accuracy_limit", _text("accuracy_limit", "Problems per task", "Empty: all"))
        with gr.Column(min_width=180):
            field("repeats", _number("repeats", "Repeats", "For the confidence interval"))
        with gr.Column(min_width=180):
            devices = [("Any worker", ""), *((device.name, device.id) for device in all_devices())]
            info = "What the worker must have"
            chooser = gr.Dropdown(devices, value="", label="Hardware", info=info, elem_id="cap-field-hardware")
            field("hardware", chooser)
        with gr.Column(min_width=180):
            field("submitter", _text("submitter", "Your name", "Shown beside the request"))
    return fields, messages


def _text(name: str, label: str, info: str) -> gr.Textbox:
    """Also for numbers that may be left out: gr.Number turns nothing into 0 when the section that holds it opens."""
    return gr.Textbox(EXAMPLE.get(name), label=label, info=info, max_lines=1, elem_id=f"cap-field-{name}")


def _number(name: str, label: str, info: str) -> gr.Number:
    return gr.Number(EXAMPLE.get(name), label=label, info=info, precision=None, elem_id=f"cap-field-{name}")
