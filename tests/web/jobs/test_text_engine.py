"""The thread that writes the texts of all requests, and the counters of a server."""

from __future__ import annotations

import asyncio
import json
import threading
from types import SimpleNamespace

import pytest
import torch

from crystallm.errors import CrystallmError, InputError
from crystallm.network.config import ModelConfig
from crystallm.network.transformer import GPT
from crystallm.sampling import sample as sampling_sample
from crystallm.sampling import sequence
from crystallm.sampling.sequence import DecodingOptions, SequenceRequest, Stop

pytest.importorskip("fastapi", reason="the page needs fastapi")

from crystallm.web.jobs.job import BusyError, view
from crystallm.web.jobs.queue import Jobs
from crystallm.web.jobs.runner import JobRunner
from crystallm.web.jobs.store import Store, state_of
from crystallm.web.jobs.text_engine import FAILURES, Engine, SamplingJob
from crystallm.web.metrics import Metrics
from crystallm.web.rate_limits import Limits, NoSlotError, Slots, origin

V, SECONDS = 40, 60
OPTIONS = DecodingOptions(Stop((3,)), top_k=None, max_new_tokens=12)


@pytest.fixture
def network():
    torch.manual_seed(0)
    config = ModelConfig(language="x", vocab_size=V, context=32, n_layer=1, n_head=2, n_embd=16)
    return GPT(config).eval()


class Heard:
    """What a ticket is told."""

    def __init__(self, n: int, order: list[str], name: str = "") -> None:
        self.samples: dict[int, sequence.Sample] = {}
        self.reasons: list[str] = []
        self.over = threading.Event()
        self.n, self.order, self.name = n, order, name

    def written(self, number, sample):
        self.samples[number] = sample
        self.order.append(self.name)
        if len(self.samples) == self.n:
            self.over.set()

    def failed(self, reason):
        self.reasons.append(reason)
        self.over.set()


def ticket(heard, seed):
    drafts = [SequenceRequest((1, 2), OPTIONS, seed, index) for index in range(heard.n)]
    return SamplingJob(drafts, heard.written, heard.failed)


def test_each_ticket_gets_its_own_texts_and_a_short_one_waits_for_no_long_one(network):
    order: list[str] = []
    long, short = Heard(60, order, "long"), Heard(2, order, "short")
    engine = Engine(network, batch_size=2)
    engine.put(ticket(long, 1))
    engine.put(ticket(short, 2))
    engine.start()
    for heard, seed in ((short, 2), (long, 1)):
        assert heard.over.wait(SECONDS)
        alone = sampling_sample.sample(
            network, [(1, 2)] * heard.n, stop=OPTIONS.stop, top_k=None, max_new_tokens=12, seed=seed
        )
        assert [heard.samples[i].ids for i in range(heard.n)] == [one.ids for one in alone]
    engine.close()
    assert order.index("short") < 10
    assert order[-1] == "long"
    assert engine.n_written == 62
    assert engine.n_writing == 0


def test_a_dropped_ticket_hears_nothing_more(network):
    order: list[str] = []
    dropped, other = Heard(5000, order, "dropped"), Heard(3, order)
    engine = Engine(network, batch_size=4)
    first = ticket(dropped, 1)
    engine.put(first)
    engine.start()
    while not dropped.samples:
        threading.Event().wait(0.01)
    engine.drop(first)
    engine.put(ticket(other, 2))
    assert other.over.wait(SECONDS)
    heard = len(dropped.samples)
    engine.close()
    assert len(dropped.samples) == heard < 5000


def test_broken_weights_are_told_to_all_who_wait_and_who_come(network):
    with torch.no_grad():
        network.lm_head.weight.fill_(float("nan"))
    ended = threading.Event()
    engine = Engine(network, batch_size=2, ended=ended.set)
    waiting = [Heard(5, []) for _ in range(FAILURES)]
    late = Heard(1, [])
    engine.start()
    for seed, heard in enumerate(waiting):
        assert not engine.broken
        engine.put(ticket(heard, seed))
        assert heard.over.wait(SECONDS)
        assert len(heard.reasons) == 1
        assert "not finite" in heard.reasons[0]
    assert ended.wait(SECONDS)
    engine.put(ticket(late, 9))
    assert late.reasons == [engine.broken]
    engine.close()


def test_a_failure_costs_what_was_being_written_and_no_more(network, monkeypatch):
    serve = sampling_sample.serve
    failures = iter(["once", "twice"])

    def failing(*args, **options):
        if next(failures, None):
            line = args[1]
            assert line.next(wait=True)  # a text has been begun
            raise RuntimeError("no more memory")
        return serve(*args, **options)

    monkeypatch.setattr(sampling_sample, "serve", failing)
    engine = Engine(network, batch_size=2)
    hit = [Heard(5, []) for _ in range(2)]
    spared = Heard(3, [])
    for seed, heard in enumerate(hit):
        engine.put(ticket(heard, seed))
    engine.put(ticket(spared, 7))
    engine.start()
    for heard in (*hit, spared):
        assert heard.over.wait(SECONDS)
    assert [heard.reasons for heard in hit] == [["RuntimeError: no more memory"]] * 2
    assert sorted(spared.samples) == [0, 1, 2]
    assert not engine.broken
    engine.close()


def jobs_of(tmp_path, runner, **limits):
    store = Store(tmp_path / "out")
    return Jobs(store, Limits(**limits), Metrics(), runner)


async def ended(*jobs):
    """Wait until all are over."""
    for _ in range(100 * SECONDS):
        if all(job.over and job.task is None for job in jobs):
            return
        await asyncio.sleep(0.01)
    raise AssertionError([job.state for job in jobs])


def test_a_job_that_is_cancelled_before_it_begins_is_over(tmp_path):
    async def work():
        async def run(job):
            raise AssertionError("it has begun")

        jobs = jobs_of(tmp_path, run, running=1)
        first, second = (jobs.submit({"kind": "generate"}, "here") for _ in range(2))
        assert jobs.position(second) == 1
        jobs.cancel(second)
        jobs.cancel(first)
        await ended(first, second)
        assert (first.state, second.state) == ("cancelled", "cancelled")
        assert jobs.n_running == jobs.n_waiting == 0
        jobs.submit({"kind": "generate"}, "here")  # the address has a place again

    asyncio.run(work())


def test_a_job_that_takes_too_long_or_fails_says_so(tmp_path):
    async def work():
        faults = {
            "slow": lambda: asyncio.sleep(60),
            "wrong": lambda: raising(InputError("no such thing")),
            "together": lambda: raising(ExceptionGroup("", [CrystallmError("the disk is full")])),
            "ours": lambda: raising(KeyError("secret")),
        }

        async def raising(error):
            raise error

        jobs = jobs_of(tmp_path, lambda job: faults[job.ask["kind"]](), job_seconds=0.2)
        found = [jobs.submit({"kind": kind}, "here") for kind in faults]
        await ended(*found)
        assert [job.state for job in found] == ["failed"] * 4
        messages = [view(job.lines)["message"] for job in found]
        assert messages == [
            "took longer than 0.2 s: ask for less",
            "no such thing",
            "the disk is full",
            "internal error: the server's log tells what",
        ]

    asyncio.run(work())


def test_a_job_whose_end_the_disk_did_not_take_is_over_all_the_same(tmp_path, monkeypatch):
    append = Store.append

    def full(self, name, line):
        if '"state":"queued"' not in line:
            raise CrystallmError("the results cannot be kept: No space left on device")
        append(self, name, line)

    async def work():
        async def run(job):
            job.tell("crystal", {"number": 0})

        jobs = jobs_of(tmp_path, run)
        monkeypatch.setattr(Store, "append", full)
        job = jobs.submit({"kind": "generate"}, "here")
        await ended(job)
        assert job.state == "failed"
        assert "No space left" in view(job.lines)["message"]
        later = jobs_of(tmp_path, run)  # which has only what the disk has taken
        found = await later.get(job.name)
        assert found.state == view(found.lines)["state"] == "interrupted"
        monkeypatch.setattr(Store, "append", append)
        again = await jobs_of(tmp_path, run).get(job.name)
        assert again.state == "interrupted"
        assert state_of(Store(tmp_path / "out").read(job.name).lines) == "interrupted"

    asyncio.run(work())


def test_an_interrupted_job_takes_a_place_to_be_gone_on_with(tmp_path):
    async def work():
        begun = []

        async def run(job):
            begun.append(job.name)
            job.tell("crystal", {"number": len(begun)})
            if len(begun) < 2:
                await asyncio.sleep(60)

        first = jobs_of(tmp_path, run)
        job = first.submit({"kind": "generate"}, "here", "of these weights")
        await asyncio.sleep(0.05)
        await first.close()
        assert job.state == "interrupted"
        jobs = jobs_of(tmp_path, run, per_address=1)
        kept = await jobs.get(job.name)
        assert (kept.state, kept.origin) == ("interrupted", "of these weights")
        other = jobs.submit({"kind": "search"}, "there")
        with pytest.raises(BusyError, match="of your address"):
            jobs.resume(kept, "there")
        assert kept.state == "interrupted"
        jobs.cancel(other)
        await asyncio.sleep(0.05)
        jobs.resume(kept, "there")
        jobs.resume(kept, "there")  # it is under way: nothing more happens
        assert await jobs.get(job.name) is kept
        told = [json.loads(line) async for _, line in jobs.follow(kept, 0)]
        assert begun == [job.name] * 2
        states = [one["data"]["state"] for one in told if one["event"] == "state"]
        assert states == ["queued", "running", "queued", "running", "done"]
        assert [one["data"]["number"] for one in told if one["event"] == "crystal"] == [1, 2]
        assert "message" not in view(kept.lines)
        with pytest.raises(ValueError, match="done"):
            jobs.resume(kept, "there")

    asyncio.run(work())


@pytest.mark.parametrize("kind", ["relax", "evaluate"])
def test_what_was_told_of_crystals_handed_in_is_not_done_again(kind, monkeypatch):
    runner = JobRunner({}, ["energies:morse"], Limits(), Metrics(), judges=1)
    done = []

    async def asked(_pool, name, task, _seconds):
        done.append((name.rpartition(":")[2].partition("@")[0], task.get("text") or task.get("structure")))
        return {"structure": task["text"]} if "text" in task else {"energy": -1.0}

    monkeypatch.setattr(runner, "_asked", asked)
    told = {
        "relax": [{"number": 0, "structure": "a", "energy": -2.0}, {"number": 1, "structure": "b"}],
        "evaluate": [{"number": 0, "structure": "a"}, {"number": 1, "structure": "b"}],
    }
    energy = {"energy": "energies:morse"} if kind == "relax" else {}
    job = SimpleNamespace(
        ask={"kind": kind, "structures": ["a", "b", "c"], **energy},
        known=lambda: {"crystals": told[kind]},
        tell=lambda *_: None,
        enter=lambda *_, **__: None,
    )
    try:
        asyncio.run(runner.run(job))
    finally:
        runner.close()
    assert {what for _, what in done if what is not None} == ({"b", "c"} if kind == "relax" else {"c"})
    assert [what for name, what in done if name in ("handed_in", "judged")] == ["c"]


def test_crystals_of_several_jobs_take_turns_at_the_energy_model(monkeypatch):
    runner = JobRunner({}, ["energies:morse"], Limits(), Metrics(), judges=1)
    order: list[str] = []
    process = asyncio.Lock()  # one process behind a line

    async def asked(_pool, name, task, _seconds):
        if name.endswith(":handed_in"):
            return {"structure": task["text"]}
        if "record" in task:
            return {}
        async with process:
            order.append(task["structure"])
            await asyncio.sleep(0.001)
        return {"energy": -1.0}

    monkeypatch.setattr(runner, "_asked", asked)

    async def work():
        def job(text):
            ask = {"kind": "relax", "structures": [text] * 6, "energy": "energies:morse"}
            known = {"crystals": []}
            return SimpleNamespace(
                ask=ask, known=lambda: known, tell=lambda *_: None, enter=lambda *_, **__: None
            )

        await asyncio.gather(*(runner.run(job(text)) for text in ("first", "second")))

    try:
        asyncio.run(work())
    finally:
        runner.close()
    assert sorted(order) == ["first"] * 6 + ["second"] * 6
    assert order.index("second") <= 2
    assert order[:10].count("first") == order[:10].count("second")


def test_no_address_can_take_all_places_and_it_has_more_streams_than_jobs():
    limits = Limits()
    assert 4 * limits.per_address <= limits.running + limits.waiting
    assert 4 * limits.streams_per_address <= limits.streams
    assert limits.streams_per_address >= 4 * limits.per_address


def test_places_are_for_all_and_for_each_address():
    places = Slots(3, 2)
    places.take("a")
    with places.one("a"), pytest.raises(NoSlotError):
        places.take("a")
    places.take("b")
    places.take("a")
    with pytest.raises(NoSlotError):
        places.take("c")
    places.leave("b")
    places.take("c")
    assert places.n_taken == 3


@pytest.mark.parametrize(
    ("host", "counted"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:0:1:a::1", "2001:db8:0:1::/64"),
        ("2001:db8:0:1:ffff:ffff:ffff:ffff", "2001:db8:0:1::/64"),
        ("2001:db8:0:2::1", "2001:db8:0:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("testclient", "testclient"),
    ],
)
def test_an_address_of_ipv6_counts_by_its_network(host, counted):
    assert origin(host) == counted


def test_labels_are_escaped_and_counts_add_up():
    metrics = Metrics()
    metrics.count("answers", "By kind.", kind='a"b\\c\nd')
    metrics.count("answers", "By kind.", kind='a"b\\c\nd', by=2)
    text = metrics.text({"open": ("Now.", 3)})
    assert 'crystallm_answers_total{kind="a\\"b\\\\c\\nd"} 3\n' in text
    assert text.endswith("# TYPE crystallm_open gauge\ncrystallm_open 3\n")
