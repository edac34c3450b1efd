"""Commands in the documents start tests that are there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*/README.md")]


def test_tests_that_are_named_in_commands_are_there() -> None:
    named = {
        (document.name, path)
        for document in DOCUMENTS
        for path in re.findall(r"pytest [^`\n]*?(tests/[\w/.]*\w)", document.read_text(encoding="utf-8"))
    }
    assert ("service.md", "tests/vlac_gym/service/test_gpu_memory.py") in named
    assert {(document, path) for document, path in named if not (ROOT / path).exists()} == set()


def _anchors(document: Path) -> set[str]:
    """What GitHub makes of a document's headings."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_within_the_documents_lead_somewhere() -> None:
    broken = []
    num_anchors = 0
    for document in DOCUMENTS:
        for link in re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8")):
            if re.match(r"\w+:", link):
                continue
            path, _, anchor = link.partition("#")
            target = (document.parent / path).resolve() if path else document
            num_anchors += bool(anchor)
            if not target.exists() or (anchor and anchor not in _anchors(target)):
                broken.append((document.name, link))
    assert num_anchors > 20
    assert broken == []
