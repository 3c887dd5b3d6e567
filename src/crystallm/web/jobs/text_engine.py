"""The thread that samples the token sequences of all requests, side by side in the same batches.

Each request is a sampling job. Jobs take turns, one sequence each, so that a long one does not delay a short
one. A sequence does not depend on those beside it (see `sampling.sample`).
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence

from crystallm.network.transformer import GPT
from crystallm.sampling.sample import serve
from crystallm.sampling.sequence import Sample, SequenceRequest

_LOG = logging.getLogger(__name__)
MAX_FAILURES = 3
"""Failures in a row, without a finished sequence between them, after which an engine stops."""


class SamplingJob:
    """The token sequences of one request.

    The thread of the engine calls `on_sample` with the index of a sequence and its sample, or `on_failure`
    with the reason.
    """

    def __init__(
        self,
        sequences: Sequence[SequenceRequest],
        on_sample: Callable[[int, Sample], None],
        on_failure: Callable[[str], None],
    ) -> None:
        self.indices = {sequence: index for index, sequence in enumerate(sequences)}
        self.waiting = deque(sequences)
        self.on_sample = on_sample
        self.on_failure = on_failure
        self.dropped = False


class TextEngine:
    """Samples until it is closed; see the module.

    A failure ends the jobs that are in the batch; waiting jobs are tried again.

    Args:
        on_broken: called by its thread if it stops after failures.

    Attributes:
        broken: why it has stopped; "" while it runs.
        n_finished: sequences so far.
        n_tokens: tokens of these.
    """

    def __init__(
        self, network: GPT, batch_size: int = 32, on_broken: Callable[[], None] = lambda: None
    ) -> None:
        self.broken = ""
        self.n_finished = self.n_tokens = 0
        self._on_broken = on_broken
        self._network = network
        self._batch_size = batch_size
        self._changed = threading.Condition()
        self._turns: deque[SamplingJob] = deque()
        self._in_batch: dict[SequenceRequest, SamplingJob] = {}
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="crystallm-engine", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    @property
    def n_in_batch(self) -> int:
        """Sequences that are being sampled."""
        return len(self._in_batch)

    def put(self, job: SamplingJob) -> None:
        """Enqueue a job; its callbacks may be called at once."""
        with self._changed:
            if not self.broken:
                self._turns.append(job)
                self._changed.notify()
                return
        job.on_failure(self.broken)

    def drop(self, job: SamplingJob) -> None:
        """Drop a job, its sequences in the batch included."""
        with self._changed:
            job.dropped = True
            if job in self._turns:
                self._turns.remove(job)

    def close(self) -> None:
        """Stop the thread after the current step."""
        with self._changed:
            self._closed = True
            for job in tuple(self._in_batch.values()):  # which the thread changes
                job.dropped = True
            self._turns.clear()
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join()

    # -- the queue of `sampling.sample.serve`, in the thread of the engine -----------------------------------

    def next(self, *, wait: bool) -> SequenceRequest | None:
        """Return the next sequence of the job whose turn it is; see `RequestQueue`."""
        with self._changed:
            while wait and not self._turns and not self._closed:
                self._changed.wait()
            if self._closed or not self._turns:
                return None
            job = self._turns.popleft()
            sequence = job.waiting.popleft()
            if job.waiting:
                self._turns.append(job)
            self._in_batch[sequence] = job
            return sequence

    def is_active(self, sequence: SequenceRequest) -> bool:
        """Whether the job of a sequence was not dropped."""
        if not self._in_batch[sequence].dropped:
            return True
        del self._in_batch[sequence]
        return False

    def _run(self) -> None:
        n_failures, n_before = 0, 0
        while True:
            try:
                self._sample()
            except Exception as error:  # noqa: BLE001 - whatever it is, the waiting jobs must learn of it
                _LOG.exception("sampling has failed")
                n_failures = n_failures + 1 if self.n_finished == n_before else 1
                n_before = self.n_finished
                self._fail(f"{type(error).__name__}: {error}", for_good=n_failures == MAX_FAILURES)
                if self.broken:
                    self._on_broken()
                    return
            else:
                return

    def _sample(self) -> None:
        for sequence, sample in serve(self._network, self, batch_size=self._batch_size):
            job = self._in_batch[sequence]
            self.n_finished += 1
            self.n_tokens += len(sample.log_probs)
            if not job.dropped:
                job.on_sample(job.indices[sequence], sample)
            del self._in_batch[sequence]

    def _fail(self, reason: str, *, for_good: bool) -> None:
        """Fail the jobs in the batch; all jobs if the engine stops."""
        with self._changed:
            failed = set(self._in_batch.values())
            self._in_batch.clear()
            if for_good:
                self.broken = reason
                failed.update(self._turns)
            for job in failed:
                job.dropped = True
            self._turns = deque(job for job in self._turns if not job.dropped)
        for job in failed:
            job.on_failure(reason)
