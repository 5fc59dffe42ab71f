"""The look of the page: Gradio's theme bent to the tokens of static/cap.css, and what stands in <head>."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import gradio as gr

STATIC = Path(__file__).resolve().parent / "static"
GRID_LIBRARY = "vendor/ag-grid-community.min.js"


@cache
def static_url(name: str) -> str:
    """Relative address of a static file, with its content's hash so that it can be cached for ever."""
    digest = hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]
    return f"cap/{name}?v={digest}"


def head() -> str:
    """Scripts and styles that every page of the app needs; all from this host."""
    return (
        f'<link rel="stylesheet" href="{static_url("cap.css")}">'
        f'<link rel="icon" type="image/svg+xml" href="{static_url("logo.svg")}">'
        '<meta name="description" content="Cost, accuracy and performance of Mixture-of-Experts serving systems">'
        f'<script src="{static_url("page.js")}"></script>'
    )


def build_theme() -> gr.themes.Base:
    """Neutral surfaces and one accent; every colour is a token of cap.css, which knows light and dark.

    Only regular and bold are asked for: the semi-bold files that Gradio bundles miss most letters.
    """
    weights = (400, 700)
    theme = gr.themes.Base(
        font=[gr.themes.LocalFont("Source Sans Pro", weights=weights), "system-ui", "sans-serif"],
        font_mono=[gr.themes.LocalFont("IBM Plex Mono", weights=weights), "ui-monospace", "monospace"],
        radius_size=gr.themes.sizes.radius_md,
        text_size=gr.themes.sizes.text_md,
    )
    return theme.set(**{f"{name}{mode}": value for name, value in _TOKENS.items() for mode in ("", "_dark")})


_TOKENS = {
    "body_background_fill": "var(--cap-bg)",
    "body_text_color": "var(--cap-ink)",
    "body_text_color_subdued": "var(--cap-muted)",
    "background_fill_primary": "var(--cap-surface)",
    "background_fill_secondary": "var(--cap-sunken)",
    "border_color_primary": "var(--cap-line)",
    "border_color_accent": "var(--cap-accent)",
    "color_accent_soft": "var(--cap-accent-soft)",
    "link_text_color": "var(--cap-accent)",
    "link_text_color_hover": "var(--cap-accent)",
    "link_text_color_visited": "var(--cap-accent)",
    "link_text_color_active": "var(--cap-accent)",
    "block_background_fill": "transparent",
    "block_border_width": "0px",
    "block_shadow": "none",
    "block_label_text_color": "var(--cap-ink)",
    "block_title_text_color": "var(--cap-ink)",
    "block_info_text_color": "var(--cap-muted)",
    "input_background_fill": "var(--cap-surface)",
    "input_background_fill_focus": "var(--cap-surface)",
    "input_border_color": "var(--cap-line-strong)",
    "input_border_color_focus": "var(--cap-accent)",
    "input_border_width": "1px",
    "input_shadow": "none",
    "input_shadow_focus": "0 0 0 3px var(--cap-accent-soft)",
    "input_placeholder_color": "var(--cap-faint)",
    "button_primary_background_fill": "var(--cap-accent-strong)",
    "button_primary_background_fill_hover": "var(--cap-accent-hover)",
    "button_primary_text_color": "#ffffff",
    "button_primary_border_color": "transparent",
    "button_secondary_background_fill": "var(--cap-surface)",
    "button_secondary_background_fill_hover": "var(--cap-sunken)",
    "button_secondary_text_color": "var(--cap-ink)",
    "button_secondary_border_color": "var(--cap-line-strong)",
    "button_border_width": "1px",
    "checkbox_background_color": "var(--cap-surface)",
    "checkbox_background_color_selected": "var(--cap-accent-strong)",
    "checkbox_border_color": "var(--cap-line-strong)",
    "checkbox_label_background_fill": "var(--cap-surface)",
    "checkbox_label_background_fill_hover": "var(--cap-sunken)",
    "checkbox_label_background_fill_selected": "var(--cap-accent-soft)",
    "checkbox_label_text_color": "var(--cap-ink)",
    "checkbox_label_text_color_selected": "var(--cap-ink)",
    "checkbox_label_border_color": "var(--cap-line-strong)",
    "panel_background_fill": "transparent",
    "panel_border_width": "0px",
}
