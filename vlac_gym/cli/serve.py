"""`vlac-gym serve`: a critic behind HTTP, for many rollout workers."""

__all__ = ["Args", "run"]

import logging
import sys
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from vlac_gym.critic import make_critic
from vlac_gym.critic.registry import check_critic
from vlac_gym.errors import DependencyNotInstalled, unknown_name

if TYPE_CHECKING:
    from vlac_gym.service.server import ServerConfig

_LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True)
class Args:
    """Serve a critic until Ctrl-C or SIGTERM; clients use its URL as their critic."""

    critic: str
    """What to serve: nano, transformers:PATH, openai:URL#MODEL, … An oracle can't be served."""
    host: str = "127.0.0.1"
    """Address to bind. Other machines need 0.0.0.0 (or one address), and then --token-file."""
    port: int = 8400
    """Port to bind; 0 lets the system choose and prints it."""
    token_file: str | None = None
    """File with the bearer token that clients must send."""
    max_batch: int = 64
    """Frames or pairs in one call of the model."""
    max_wait_ms: float = 4.0
    """How long the first frame of a batch waits for company."""
    max_queue: int = 8192
    """Frames that may wait; beyond it clients are told to come back later."""
    frame_store_mb: int = 2048
    """Memory for frames that clients need not send again."""
    max_body_mb: int = 128
    """Size of one request."""
    gpu_memory_fraction: float | None = None
    """Bound on this process's share of the GPU's memory, e.g. 0.1."""
    shutdown_s: float = 30.0
    """How long requests in work may take after Ctrl-C or SIGTERM."""
    log_level: str = "info"
    """debug, info, warning or error; log lines are JSON, on stderr."""
    ray: bool = False
    """Run as a Ray Serve application instead of in this process."""
    replicas: int = 1
    """With --ray: replicas of the critic, or the most of them if --min-replicas is given."""
    min_replicas: int | None = None
    """With --ray: scale between this number and --replicas by load."""
    gpus_per_replica: float = 0.0
    """With --ray: share of a GPU that each replica reserves."""
    ray_resource: str | None = None
    """With --ray: custom resource that a node must have, e.g. critic."""
    ray_address: str | None = None
    """With --ray: cluster to join, e.g. auto; none starts a local one."""


def run(args: Args) -> int:
    """Serves until told to stop."""
    if args.log_level not in _LEVELS:
        raise unknown_name("log level", args.log_level, _LEVELS)
    check_critic(args.critic)
    try:
        from vlac_gym.service import server
        from vlac_gym.service.core import ServiceConfig
        from vlac_gym.service.protocol import Limits
        from vlac_gym.service.token_file import read_token
    except ImportError as e:
        if isinstance(e, DependencyNotInstalled):
            raise
        raise DependencyNotInstalled(
            f'A critic server needs {e.name}. Run: pip install "vlac-gym[serve]"'
        ) from e
    config = server.ServerConfig(
        host=args.host,
        port=args.port,
        shutdown_s=args.shutdown_s,
        gpu_memory_fraction=args.gpu_memory_fraction,
        service=ServiceConfig(
            max_batch=args.max_batch,
            max_wait_ms=args.max_wait_ms,
            max_queue=args.max_queue,
            frame_store_bytes=args.frame_store_mb * 2**20,
            token=None if args.token_file is None else read_token(args.token_file),
            limits=Limits(max_body_bytes=args.max_body_mb * 2**20),
        ),
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(server.JsonLogFormatter())
    logging.basicConfig(level=args.log_level.upper(), handlers=[handler], force=True)
    if args.ray:
        return _run_on_ray(args, config)
    return server.serve(
        partial(make_critic, args.critic),
        config,
        on_listening=lambda url: print(f"Listening at {url}; loading {args.critic}", flush=True),
        on_ready=lambda: print("Ready.", flush=True),
    )


def _run_on_ray(args: Args, config: "ServerConfig") -> int:
    from vlac_gym.service.ray_serve import RayOptions, serve_on_ray

    options = RayOptions(
        replicas=args.replicas,
        min_replicas=args.min_replicas,
        gpus_per_replica=args.gpus_per_replica,
        resource=args.ray_resource,
        address=args.ray_address,
    )
    return serve_on_ray(
        args.critic, config, options, on_listening=lambda url: print(f"Ready at {url}", flush=True)
    )
