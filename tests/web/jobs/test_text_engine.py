"""The thread that samples the sequences of all requests."""

from __future__ import annotations

import threading

import pytest
import torch

from crystallm.network.config import ModelConfig
from crystallm.network.transformer import GPT
from crystallm.sampling.sample import sample, serve
from crystallm.sampling.sequence import DecodingOptions, Sample, SequenceRequest, Stop
from crystallm.web.jobs import text_engine
from crystallm.web.jobs.text_engine import MAX_FAILURES, SamplingJob, TextEngine

V, SECONDS = 40, 60


OPTIONS = DecodingOptions(Stop((3,)), top_k=None, max_new_tokens=12)


@pytest.fixture
def network():
    torch.manual_seed(0)
    config = ModelConfig(language="x", vocab_size=V, context=32, n_layer=1, n_head=2, n_embd=16)
    return GPT(config).eval()


class Heard:
    """Records the callbacks of a sampling job."""

    def __init__(self, n: int, order: list[str], name: str = "") -> None:
        self.samples: dict[int, Sample] = {}
        self.reasons: list[str] = []
        self.finished = threading.Event()
        self.n, self.order, self.name = n, order, name

    def written(self, number, sample):
        self.samples[number] = sample
        self.order.append(self.name)
        if len(self.samples) == self.n:
            self.finished.set()

    def failed(self, reason):
        self.reasons.append(reason)
        self.finished.set()


def sampling_job(heard, seed):
    drafts = [SequenceRequest((1, 2), OPTIONS, seed, index) for index in range(heard.n)]
    return SamplingJob(drafts, heard.written, heard.failed)


def test_jobs_take_turns_and_get_their_own_sequences(network):
    order: list[str] = []
    long, short = Heard(60, order, "long"), Heard(2, order, "short")
    engine = TextEngine(network, batch_size=2)
    engine.put(sampling_job(long, 1))
    engine.put(sampling_job(short, 2))
    engine.start()
    for heard, seed in ((short, 2), (long, 1)):
        assert heard.finished.wait(SECONDS)
        alone = sample(
            network, [(1, 2)] * heard.n, stop=OPTIONS.stop, top_k=None, max_new_tokens=12, seed=seed
        )
        assert [heard.samples[i].ids for i in range(heard.n)] == [one.ids for one in alone]
    engine.close()
    assert order.index("short") < 10
    assert order[-1] == "long"
    assert engine.n_finished == 62
    assert engine.n_in_batch == 0


def test_a_dropped_job_gets_no_more_samples(network):
    order: list[str] = []
    dropped, other = Heard(5000, order, "dropped"), Heard(3, order)
    engine = TextEngine(network, batch_size=4)
    first = sampling_job(dropped, 1)
    engine.put(first)
    engine.start()
    while not dropped.samples:
        threading.Event().wait(0.01)
    engine.drop(first)
    engine.put(sampling_job(other, 2))
    assert other.finished.wait(SECONDS)
    heard = len(dropped.samples)
    engine.close()
    assert len(dropped.samples) == heard < 5000


def test_broken_weights_fail_waiting_and_later_jobs(network):
    with torch.no_grad():
        network.lm_head.weight.fill_(float("nan"))
    ended = threading.Event()
    engine = TextEngine(network, batch_size=2, on_broken=ended.set)
    waiting = [Heard(5, []) for _ in range(MAX_FAILURES)]
    late = Heard(1, [])
    engine.start()
    for seed, heard in enumerate(waiting):
        assert not engine.broken
        engine.put(sampling_job(heard, seed))
        assert heard.finished.wait(SECONDS)
        assert len(heard.reasons) == 1
        assert "not finite" in heard.reasons[0]
    assert ended.wait(SECONDS)
    engine.put(sampling_job(late, 9))
    assert late.reasons == [engine.broken]
    engine.close()


def test_a_failure_ends_only_the_jobs_in_the_batch(network, monkeypatch):
    failures = iter(["once", "twice"])

    def failing(*args, **options):
        if next(failures, None):
            line = args[1]
            assert line.next(wait=True)  # a text has been begun
            raise RuntimeError("no more memory")
        return serve(*args, **options)

    monkeypatch.setattr(text_engine, "serve", failing)
    engine = TextEngine(network, batch_size=2)
    hit = [Heard(5, []) for _ in range(2)]
    spared = Heard(3, [])
    for seed, heard in enumerate(hit):
        engine.put(sampling_job(heard, seed))
    engine.put(sampling_job(spared, 7))
    engine.start()
    for heard in (*hit, spared):
        assert heard.finished.wait(SECONDS)
    assert [heard.reasons for heard in hit] == [["RuntimeError: no more memory"]] * 2
    assert sorted(spared.samples) == [0, 1, 2]
    assert not engine.broken
    engine.close()
