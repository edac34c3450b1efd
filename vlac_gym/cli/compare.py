"""`vlac-gym compare`: evaluations over the same starts, or report cards, on one page."""

__all__ = ["Args", "run"]

from dataclasses import dataclass
from pathlib import Path

from vlac_gym.evaluation.compare import compare, write_comparison
from vlac_gym.extras import needs
from vlac_gym.files.output_folder import claim_folder

with needs("The command line", "cli"):
    from tyro.conf import Positional


@dataclass(frozen=True, kw_only=True)
class Args:
    """What to compare, and where to write."""

    entries: Positional[tuple[Path, ...]]
    """Two or more: folders of vlac-gym eval, all compared with the first, or report cards."""
    out: Path
    """Folder for compare.json and index.html, new or empty."""


def run(args: Args) -> int:
    """Runs the command; see `vlac-gym compare --help`."""
    content = compare(args.entries)
    with claim_folder(args.out) as out:
        write_comparison(content, out)
    for pair in content["pairs"]:
        estimate = pair["difference"]
        print(
            f"{pair['second']} - {pair['first']}: {100 * estimate['value']:+.1f} points "
            f"({100 * estimate['low']:+.1f} … {100 * estimate['high']:+.1f}) over {estimate['n']} starts, "
            f"p = {pair['p_value']:.4f}"
        )
    print(args.out / "index.html")
    return 0
