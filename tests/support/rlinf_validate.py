"""Composes an RLinf config and gives it to RLinf's own `validate_cfg`: `python rlinf_validate.py FOLDER NAME`."""

import sys
from pathlib import Path

from rlinf_run import own_ray

from verl_env_adapter.rlinf import plugin
from verl_env_adapter.rlinf.check import compose


def main(folder: str, name: str) -> int:
    with own_ray():
        from rlinf.config import validate_cfg

        plugin.register()  # the models, as `verl_env_adapter.rlinf.launch` does
        cfg = validate_cfg(compose(Path(folder), name, []))
        print("valid:", cfg.runner.logger.experiment_name)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
