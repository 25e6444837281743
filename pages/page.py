"""What all HTML reports share: one self-contained file, no script, no network, all text escaped."""

from base64 import b64encode
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from datasets.check.strips import Strip

_TEMPLATES = Path(__file__).resolve().parent / "templates"


def render_page(
    template: str,
    context: Mapping[str, Any],
    filters: Mapping[str, Callable[..., Any]] | None = None,
) -> str:
    """Return a page as HTML.

    Args:
        template: file in templates/; it finds the common style in page.css.
        context: its variables.
        filters: its own, beside `data_uri`, `commas`, `percent` and `sentence`.
    """
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["data_uri"] = data_uri
    environment.filters["commas"] = lambda number: f"{number:,}"
    environment.filters["percent"] = lambda share: f"{share:.1%}"
    environment.filters["sentence"] = sentence
    environment.filters.update(filters or {})
    return environment.get_template(template).render(**context)


def data_uri(strip: Strip) -> str:
    """Return a picture as an address that holds it."""
    return "data:image/jpeg;base64," + b64encode(strip.jpeg).decode("ascii")


def sentence(text: str) -> str:
    """Return text with a capital first letter and a full stop."""
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith(('.', '?', '!')) else '.'}"
