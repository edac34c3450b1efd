"""`vlac-gym clone`: trains a small policy from recorded episodes, by behaviour cloning."""

__all__ = ["Args", "run"]

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from vlac_gym.clone.recipe import CloneRecipe
from vlac_gym.extras import needs


@dataclass(frozen=True, kw_only=True)
class Args(CloneRecipe):
    """Arguments of `vlac-gym clone`."""

    data: Path
    """Folder of episodes with a frame of every step: `vlac-gym collect --frame-stride-steps 1`."""
    out: Path
    """Folder of the run, new or empty, unless --resume."""
    resume: bool = False
    """Continue the run that --out holds, with the same settings and episodes."""
    device: str | None = None
    """`cuda` or `cpu`; the first GPU by default."""

    def recipe(self) -> CloneRecipe:
        """The settings of the training alone."""
        return CloneRecipe(
            **{field.name: getattr(self, field.name) for field in dataclasses.fields(CloneRecipe)}
        )


def run(args: Args) -> int:
    """Trains, and prints how well the policy does on held-out episodes and where it is."""
    with needs("Cloning", "vlac"):
        from vlac_gym.clone.trainer import train_clone
    with needs("The command line", "cli"):
        from tqdm import tqdm

    with tqdm(disable=None) as bar:  # on a terminal alone
        shown = ""

        def show(what: str, done: int, total: int) -> None:
            nonlocal shown
            if what != shown:
                shown = what
                bar.reset(total)
                bar.set_description(what)
            bar.update(done - bar.n)

        folder = train_clone(
            args.data, args.out, args.recipe(), device=args.device, resume=args.resume, on_progress=show
        )
    facts = json.loads((folder / "clone.json").read_text(encoding="utf-8"))
    error = facts["held_out_action_error"]
    print(
        f"Learned {len(facts['tasks'])} tasks from {len(facts['episodes'])} episodes"
        + (f"; mean error of an action on held-out ones {error:.3f}." if error is not None else ".")
    )
    print(f"Watch it with: vlac-gym rollout --policy clone:{folder} --mode eval --out …")
    return 0
