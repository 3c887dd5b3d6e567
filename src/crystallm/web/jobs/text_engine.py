"""The thread that writes the texts of all requests, side by side in the same batches.

Each request has a ticket; tickets take turns, a text each, so that a long one holds up no short one. A text
is the same whatever is written beside it (see `sampling.sample`). Refuses to know what a text is for.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from typing import TYPE_CHECKING

from crystallm.sampling import sample as sampling_sample

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from crystallm.network.transformer import GPT
    from crystallm.sampling.sequence import Sample, SequenceRequest


_LOG = logging.getLogger(__name__)

FAILURES = 3
"""Failures in a row, nothing being written between them, behind which an engine does not try again."""


class SamplingJob:
    """The texts of one request.

    Args:
        drafts: in their order.
        written: called by the engine's thread with the number of a draft and what was written.
        failed: called by it with the reason, if they cannot be written.
    """

    def __init__(
        self,
        drafts: Sequence[SequenceRequest],
        written: Callable[[int, Sample], None],
        failed: Callable[[str], None],
    ) -> None:
        self.numbers = {draft: number for number, draft in enumerate(drafts)}
        self.left = deque(drafts)
        self.written = written
        self.failed = failed
        self.dropped = False


class Engine:
    """Writes texts until it is closed; see the module.

    A failure costs the requests that are being written; those that wait are written anew.

    Args:
        network: in evaluation mode.
        batch_size: texts written at a time.
        ended: called by its thread when it has come to an end before it was closed.

    Attributes:
        broken: why it has come to an end; "" while it runs.
        n_written: texts so far.
        n_tokens: of these.
    """

    def __init__(self, network: GPT, batch_size: int = 32, ended: Callable[[], None] = lambda: None) -> None:
        self.broken = ""
        self._ended = ended
        self.n_written = self.n_tokens = 0
        self._network = network
        self._batch_size = batch_size
        self._news = threading.Condition()
        self._turns: deque[SamplingJob] = deque()
        self._writing: dict[SequenceRequest, SamplingJob] = {}
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="crystallm-engine", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    @property
    def n_writing(self) -> int:
        """Texts that are being written."""
        return len(self._writing)

    def put(self, ticket: SamplingJob) -> None:
        """Let the texts of a request be written; its calls begin at once."""
        with self._news:
            if not self.broken:
                self._turns.append(ticket)
                self._news.notify()
                return
        ticket.failed(self.broken)

    def drop(self, ticket: SamplingJob) -> None:
        """Let go of a request, what is half written too."""
        with self._news:
            ticket.dropped = True
            if ticket in self._turns:
                self._turns.remove(ticket)

    def close(self) -> None:
        """End the thread behind the texts that are being written."""
        with self._news:
            self._closed = True
            for ticket in tuple(self._writing.values()):  # which its thread changes
                ticket.dropped = True
            self._turns.clear()
            self._news.notify()
        if self._thread.is_alive():
            self._thread.join()

    # -- the queue that `sampling.sample.serve` reads, in the thread of the engine

    def next(self, *, wait: bool) -> SequenceRequest | None:
        """The next draft of the ticket whose turn it is; see `RequestQueue`."""
        with self._news:
            while wait and not self._turns and not self._closed:
                self._news.wait()
            if self._closed or not self._turns:
                return None
            ticket = self._turns.popleft()
            draft = ticket.left.popleft()
            if ticket.left:
                self._turns.append(ticket)
            self._writing[draft] = ticket
            return draft

    def is_active(self, draft: SequenceRequest) -> bool:
        """Whether its ticket was not dropped."""
        if not self._writing[draft].dropped:
            return True
        del self._writing[draft]
        return False

    def _run(self) -> None:
        failures, before = 0, 0
        while True:
            try:
                self._write()
            except Exception as error:  # noqa: BLE001 - who waits for a text has to hear of it, whatever it is
                _LOG.exception("writing has failed")
                failures = failures + 1 if self.n_written == before else 1
                before = self.n_written
                self._fail(f"{type(error).__name__}: {error}", for_good=failures == FAILURES)
                if self.broken:
                    self._ended()
                    return
            else:
                return

    def _write(self) -> None:
        for draft, sample in sampling_sample.serve(self._network, self, batch_size=self._batch_size):
            ticket = self._writing[draft]
            self.n_written += 1
            self.n_tokens += len(sample.log_probs)
            if not ticket.dropped:
                ticket.written(ticket.numbers[draft], sample)
            del self._writing[draft]

    def _fail(self, reason: str, *, for_good: bool) -> None:
        """Let go of the requests that were being written; of all, if no other will be."""
        with self._news:
            hit = set(self._writing.values())
            self._writing.clear()
            if for_good:
                self.broken = reason
                hit.update(self._turns)
            for ticket in hit:
                ticket.dropped = True
            self._turns = deque(ticket for ticket in self._turns if not ticket.dropped)
        for ticket in hit:
            ticket.failed(reason)
