"""Renders a run's summary as one offline web page: `render_page`.

The page needs no network and no script; videos and plots are referred to by relative names.
"""

__all__ = ["render_page"]

from collections.abc import Mapping
from typing import Any

from vlac_gym.metrics.episodes import METRIC_NAMES
from vlac_gym.reporting.reading import is_paid_wrongly, read_summary
from vlac_gym.reporting.rendering import render_template
from vlac_gym.reporting.trace import PRIVILEGED_NOTE

_VALUES_FOR = {"reward": "paid as reward", "plot": "asked for after the episode; not in the reward"}


def render_page(summary: Mapping[str, Any]) -> str:
    """HTML of the page for one run.

    Args:
        summary: Content of `summary.json`; every text in it is escaped.

    Raises:
        DependencyNotInstalled: jinja2 is missing.
    """
    return render_template(
        "run.html",
        summary=summary,
        reading=read_summary(summary),
        metric_names=METRIC_NAMES,
        values_for=_VALUES_FOR,
        is_paid_wrongly=is_paid_wrongly,
        privileged_note=PRIVILEGED_NOTE,
    )
