"""The same critic service as a Ray Serve application: replicas, restarts, scaling, placement.

`serve_on_ray` runs it until a signal; `build_application` gives it to those who deploy by themselves.
"""

__all__ = ["APP_NAME", "RayOptions", "build_application", "serve_on_ray"]

import logging
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from vlac_gym.critic import make_critic
from vlac_gym.critic.engines.cuda_memory import limit_cuda_memory
from vlac_gym.errors import ConfigError, CriticServerError
from vlac_gym.extras import needs
from vlac_gym.service.app import create_app
from vlac_gym.service.core import CriticService
from vlac_gym.service.server import ServerConfig

with needs("Ray Serve", "ray"):
    import ray
    from ray import serve

logger = logging.getLogger(__name__)

APP_NAME = "vlac-critic"

_HEALTH_PERIOD_S, _HEALTH_TIMEOUT_S = 2.0, 10.0
_UPSCALE_DELAY_S, _DOWNSCALE_DELAY_S = 5.0, 120.0


@dataclass(frozen=True)
class RayOptions:
    """How many replicas run, and where.

    Attributes:
        replicas: Replicas; the most of them if `min_replicas` is given.
        min_replicas: Scale by load between this number and `replicas`; None keeps `replicas`.
        target_requests: With scaling: requests in work per replica to aim at.
        gpus_per_replica: Share of a GPU that each replica reserves.
        cpus_per_replica: CPUs that each replica reserves.
        resource: Custom resource that a node must offer, e.g. `critic`; each replica takes a thousandth, so
            that it places replicas without bounding their number.
        address: Cluster to join, e.g. `auto`; None joins the one named by `RAY_ADDRESS` or starts a local one.
    """

    replicas: int = 1
    min_replicas: int | None = None
    target_requests: float = 16.0
    gpus_per_replica: float = 0.0
    cpus_per_replica: float = 1.0
    resource: str | None = None
    address: str | None = None

    def __post_init__(self) -> None:
        if self.replicas < 1:
            raise ConfigError(f"Expected at least 1 replica, got {self.replicas!r}.")
        if self.min_replicas is not None and not 0 <= self.min_replicas <= self.replicas:
            raise ConfigError(f"Expected min_replicas in [0, {self.replicas}], got {self.min_replicas!r}.")
        for name in ("gpus_per_replica", "cpus_per_replica"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"Expected {name} of at least 0, got {getattr(self, name)!r}.")
        if not self.target_requests > 0:
            raise ConfigError(f"Expected target_requests above 0, got {self.target_requests!r}.")


class _CriticReplica:
    """One replica: the ASGI app of `vlac_gym.service.app` with a critic of its own."""

    def __init__(self, spec: str, config: ServerConfig) -> None:
        if config.gpu_memory_fraction is not None:
            limit_cuda_memory(config.gpu_memory_fraction)
        self._service = CriticService(partial(make_critic, spec), config.service)

    def __serve_build_asgi_app__(self) -> Any:
        """The app; Ray runs its lifespan, which loads the critic, before it sends requests here."""
        return create_app(self._service, loads_first=True)

    def check_health(self) -> None:
        """Ray restarts the replica if this raises."""
        if self._service.load_error is not None:
            raise self._service.load_error
        if not self._service.batcher.is_running:
            raise CriticServerError("The loop that answers questions has ended.")


def build_application(spec: str, config: ServerConfig, options: RayOptions) -> Any:
    """A Ray Serve application for `ray.serve.run`.

    Args:
        spec: What `make_critic` gets, in each replica; paths must exist on the replicas' nodes.
        config: Batches, limits, token; `host` and `port` belong to Ray's proxy (see `serve_on_ray`).
        options: Replicas and placement.
    """
    actor_options: dict[str, Any] = {
        "num_cpus": options.cpus_per_replica,
        "num_gpus": options.gpus_per_replica,
    }
    if options.resource is not None:
        actor_options["resources"] = {options.resource: 0.001}
    scaling: dict[str, Any] = {"num_replicas": options.replicas}
    if options.min_replicas is not None:
        scaling = {
            "autoscaling_config": {
                "min_replicas": options.min_replicas,
                "max_replicas": options.replicas,
                "target_ongoing_requests": options.target_requests,
                "upscale_delay_s": _UPSCALE_DELAY_S,
                "downscale_delay_s": _DOWNSCALE_DELAY_S,
            }
        }
    decorate = serve.deployment(
        name=APP_NAME,
        ray_actor_options=actor_options,
        max_ongoing_requests=config.service.limits.max_concurrent_requests,
        health_check_period_s=_HEALTH_PERIOD_S,
        health_check_timeout_s=_HEALTH_TIMEOUT_S,
        graceful_shutdown_timeout_s=config.shutdown_s,
        **scaling,
    )
    deployment = decorate(serve.ingress()(_CriticReplica))
    service = replace(config.service, replicas=options.replicas)
    return deployment.bind(spec, replace(config, service=service))


def serve_on_ray(
    spec: str,
    config: ServerConfig,
    options: RayOptions,
    *,
    on_listening: Callable[[str], None] | None = None,
) -> int:
    """Deploys the service and waits for SIGTERM or Ctrl-C; then takes it down again.

    A cluster that was running already stays up, with whatever else runs on it.

    Args:
        spec: What `make_critic` gets, in each replica.
        config: Batches, limits, token, and where Ray's proxy listens.
        options: Replicas and placement.
        on_listening: Called with the URL once all replicas are healthy.

    Returns:
        0 after a shutdown that was asked for.
    """
    ray.init(address=options.address, log_to_driver=False, ignore_reinit_error=True)
    try:
        serve.start(http_options={"host": config.host, "port": config.port})
        serve.run(build_application(spec, config, options), name=APP_NAME, route_prefix="/")
        stop = threading.Event()
        # After Ray, which puts a handler of its own in place that ends the process at once.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        if on_listening is not None:
            on_listening(f"http://{config.host}:{config.port}")
        # In steps: a wait without end in the main thread would keep the handlers from running.
        while not stop.wait(0.2):
            pass
        logger.info("shutting down")
        serve.delete(APP_NAME)
    finally:
        ray.shutdown()
    return 0
