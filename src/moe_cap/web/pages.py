"""HTML from templates/: everything that goes in is escaped."""

from __future__ import annotations

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from moe_cap.web.style import static_url


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("moe_cap.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["static"] = static_url
    environment.globals["show_seconds"] = show_seconds
    return environment


def render(template: str, **values: Any) -> Markup:
    """Fill a template; strings are escaped, Markup is not."""
    return Markup(_environment().get_template(template).render(**values))  # noqa: S704 the template escaped it


def show_seconds(seconds: float) -> str:
    """A duration in words as coarse as a forecast deserves.

    >>> show_seconds(42), show_seconds(250), show_seconds(9000)
    ('42 s', '4 min', '2.5 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
