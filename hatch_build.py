"""The README as a package index shows it: what lies beside it in the repository can't be linked or shown there."""

import re
from pathlib import Path

from hatchling.metadata.plugin.interface import MetadataHookInterface

_RELATIVE = r"\((?!https?://|#)([^)]+)\)"


class ReadmeHook(MetadataHookInterface):
    """Fills in the project's `readme` at build time."""

    def update(self, metadata: dict) -> None:
        """Leaves out pictures, and names files in the place of links to them."""
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": for_index(text)}


def for_index(text: str) -> str:
    """`text` without relative links: `[Data](docs/data.md)` becomes ``Data (`docs/data.md` in the source …)``."""
    text = re.sub(rf"!\[[^\]]*\]{_RELATIVE}\n*", "", text)
    return re.sub(rf"\[([^\]]*)\]{_RELATIVE}", _named, text)


def _named(link: re.Match[str]) -> str:
    label, path = link.groups()
    return f"`{path}`" if label == path else f"{label} (`{path}` in the source distribution)"
