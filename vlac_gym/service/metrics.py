"""What `/metrics` reports: `ServiceMetrics`, one Prometheus registry per app."""

__all__ = ["ServiceMetrics"]

from collections.abc import Callable

from vlac_gym.extras import needs

with needs("A critic server", "serve"):
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_LATENCY_BUCKETS_S = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
)
_BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class ServiceMetrics:
    """Counters, gauges and histograms of one server; every name starts with `vlac_`."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self._registry = registry
        self.requests = Counter(
            "vlac_requests", "Requests answered.", ["operation", "status"], registry=registry
        )
        self.failures = Counter(
            "vlac_failures", "Requests answered with an error.", ["reason"], registry=registry
        )
        self.request_seconds = Histogram(
            "vlac_request_seconds",
            "From the request's first byte to the reply's last.",
            ["operation"],
            buckets=_LATENCY_BUCKETS_S,
            registry=registry,
        )
        self.queue_seconds = Histogram(
            "vlac_queue_seconds", "Wait before the model.", buckets=_LATENCY_BUCKETS_S, registry=registry
        )
        self.model_seconds = Histogram(
            "vlac_model_seconds",
            "Time of one batch in the critic.",
            ["operation"],
            buckets=_LATENCY_BUCKETS_S,
            registry=registry,
        )
        self.batch_items = Histogram(
            "vlac_batch_items",
            "Frames or pairs in one batch; frames of one episode for value.",
            ["operation"],
            buckets=_BATCH_BUCKETS,
            registry=registry,
        )
        self.queue_items = Gauge("vlac_queue_items", "Items that wait for the model.", registry=registry)
        self.requests_in_work = Gauge(
            "vlac_requests_in_work", "Requests being read or judged.", registry=registry
        )
        self.awake = Gauge("vlac_awake", "1 if the critic is loaded and awake.", registry=registry)
        self.body_bytes = Counter("vlac_body_bytes", "Bytes of request bodies.", registry=registry)
        self.frame_hits = Counter("vlac_frame_hits", "Frames named that the server had.", registry=registry)
        self.frame_misses = Counter("vlac_frame_misses", "Frames named that it had not.", registry=registry)
        self.frame_bytes = Gauge("vlac_frame_store_bytes", "Bytes of frames held.", registry=registry)
        self.gpu_bytes = Gauge("vlac_gpu_memory_bytes", "GPU memory of this process.", registry=registry)

    def read_from(self, *, frame_bytes: Callable[[], float], gpu_bytes: Callable[[], float]) -> None:
        """Makes two gauges read their source whenever somebody looks."""
        self.frame_bytes.set_function(frame_bytes)
        self.gpu_bytes.set_function(gpu_bytes)

    def render(self) -> bytes:
        """The page in Prometheus' text format."""
        return generate_latest(self._registry)
