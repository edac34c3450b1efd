"""HTML pages from the templates in `reporting/templates`: `render_template`. Extra `video`."""

__all__ = ["render_template"]

from typing import Any

from vlac_gym.extras import needs


def render_template(name: str, **values: Any) -> str:
    """One page; every text in `values` is escaped, except what is marked as `safe` in the template.

    Raises:
        DependencyNotInstalled: jinja2 is missing.
    """
    with needs("A page", "video"):
        from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("vlac_gym.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name).render(values)
