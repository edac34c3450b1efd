"""Jobs that wait, one line per client, and batches that take from every line alike: `FairQueue`."""

__all__ = ["FairQueue"]

from collections import OrderedDict, deque

from vlac_gym.service.jobs import Job, Slice


class FairQueue:
    """Lines of jobs by client.

    A batch begins with the client that was served longest ago and takes an equal share from every client
    whose next job may share it; what one client does not need goes to the others.

    Args:
        max_items: Items that may wait, over all clients; one client may hold half of them.
    """

    def __init__(self, max_items: int) -> None:
        self.max_items = max_items
        self.waiting = 0
        self._lines: OrderedDict[str, deque[Job]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._lines)

    def has_room(self, client: str, items: int) -> bool:
        """True if so many items may wait; an empty line takes any, or a large request could never be asked."""
        mine = sum(job.waiting for job in self._lines.get(client, ()))
        is_over_all = self.waiting > 0 and self.waiting + items > self.max_items
        is_over_mine = mine > 0 and mine + items > max(1, self.max_items // 2)
        return not (is_over_all or is_over_mine)

    def add(self, job: Job) -> None:
        """Puts a job at the end of its client's line."""
        self._lines.setdefault(job.client, deque()).append(job)
        self.waiting += job.waiting

    def remove(self, job: Job) -> None:
        """Takes a job that ended early off its line; a finished one is off it already."""
        line = self._lines.get(job.client)
        if line is not None and job in line:
            line.remove(job)
            self.waiting -= job.waiting
            if not line:
                del self._lines[job.client]

    def drain(self) -> list[Job]:
        """Takes all jobs off their lines."""
        jobs = [job for line in self._lines.values() for job in line]
        self._lines.clear()
        self.waiting = 0
        return jobs

    @property
    def next_job(self) -> Job:
        """The job that the next batch begins with."""
        return next(iter(self._lines.values()))[0]

    @property
    def oldest(self) -> float:
        """When the longest-waiting first job was queued."""
        return min(line[0].queued_at for line in self._lines.values())

    def compose(self, max_batch: int) -> list[Slice]:
        """Takes the next batch of one operation: at most `max_batch` items, but at least one whole episode."""
        if not self._lines:
            return []
        leader, line = next(iter(self._lines.items()))
        head = line[0]
        self._lines.move_to_end(leader)
        clients = [leader, *(client for client in self._lines if client != leader)]
        batch: list[Slice] = []
        room = max_batch
        while room > 0:
            lines = [self._lines[client] for client in clients if client in self._lines]
            ready = [line[0] for line in lines if line[0].batch_key == head.batch_key]
            if head.operation == "value" and batch:
                ready = [job for job in ready if job.items <= room]
            if not ready:
                break
            share = max(1, room // len(ready))
            for job in ready[:room]:
                # The values of an episode depend on each other: it is judged whole.
                count = job.items if head.operation == "value" else min(share, job.waiting)
                if batch and count > room:
                    break
                batch.append(self._take(job, count))
                room -= count
        return batch

    def _take(self, job: Job, count: int) -> Slice:
        piece = job.take(count)
        self.waiting -= count
        if not job.waiting:
            line = self._lines[job.client]
            line.popleft()
            if not line:
                del self._lines[job.client]
        return piece
