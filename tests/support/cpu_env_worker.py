"""experimental/vla's env worker on a machine without an accelerator: `CpuEnvWorker`."""

import torch.distributed as dist
from verl.experimental.vla.workers.env.env_worker import EnvWorker


class CpuEnvWorker(EnvWorker):
    """Joins the process group first: verl's own way names the CPU's backend twice and is refused."""

    def __init__(self, config):
        if not dist.is_initialized():
            dist.init_process_group("gloo", init_method="tcp://127.0.0.1:0", rank=0, world_size=1)
        super().__init__(config)
