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
