"""Jobs over HTTP: submitted, followed, cancelled, queued."""

from __future__ import annotations

import http.client
import threading
import time

from served import MORSE
from web_requests import RUTILE


def test_events_come_in_order_and_continue_after_the_last_event_id(served, rutile):
    whole = list(served.events(rutile["id"]))
    assert [number for number, _, _ in whole] == list(range(1, len(whole) + 1))
    names = [name for _, name, _ in whole]
    assert names[0] == names[-1] == "state"
    assert names.count("crystal") == 3
    assert whole[-1][2]["state"] == "done"
    assert list(served.events(rutile["id"], after=4)) == whole[4:]


def test_a_cancelled_job_ends_at_once_and_keeps_its_crystals(served):
    slow = {"kind": "generate", "formula": "TiO2", "z": 2, "n": 64, "seed": 1, "energy": MORSE, "relax": True}
    job = served.post(slow).json["id"]
    for _, name, _ in served.events(job):
        if name == "crystal":
            break
    state = served.send("DELETE", f"/api/v1/jobs/{job}").json
    assert state["state"] == "cancelled"
    assert 1 <= len(state["crystals"]) <= 64
    assert served.send("DELETE", f"/api/v1/jobs/{job}").json["state"] == "cancelled"  # again does no harm
    assert served.done(RUTILE)["state"] == "done"


def test_jobs_queue_and_a_full_queue_gives_retry_after(served):
    slow = {"kind": "generate", "formula": "TiO2", "z": 2, "n": 64, "energy": MORSE, "relax": True}
    answers = [served.post({**slow, "seed": seed}) for seed in range(10)]
    taken = [answer.json["id"] for answer in answers if answer.status == 202]
    refused = [answer for answer in answers if answer.status == 429]
    assert len(taken) + len(refused) == 10
    assert len(refused) >= 1
    for answer in refused:
        assert int(answer.headers["retry-after"]) >= 1
        assert "waiting already" in answer.error["message"]
    positions = [served.get(f"/api/v1/jobs/{job}").json["position"] for job in taken]
    waiting = [position for position in positions if position is not None]
    assert waiting == list(range(1, len(waiting) + 1))
    event = next(data for _, name, data in served.events(taken[-1]) if name == "position")
    assert event["position"] >= 1
    for job in reversed(taken):
        assert served.send("DELETE", f"/api/v1/jobs/{job}").json["state"] == "cancelled"


def test_jobs_of_an_address_are_limited(closed):
    key = {"Authorization": "Bearer sesame-sesame-sesame"}
    slow = {**RUTILE, "n": 60, "energy": MORSE, "relax": True}
    deadline = time.monotonic() + 30
    while (first := closed.post(slow, **key)).status != 202 and time.monotonic() < deadline:
        time.sleep(0.2)
    second = closed.post(slow, **key)
    assert second.status == 429
    assert "of your address" in second.error["message"]
    closed.send("DELETE", f"/api/v1/jobs/{first.json['id']}", headers=key)


def test_streams_of_an_address_and_files_are_limited(closed):
    key = {"Authorization": "Bearer sesame-sesame-sesame"}
    slow = {**RUTILE, "n": 60, "energy": MORSE, "relax": True}
    deadline = time.monotonic() + 30
    while (first := closed.post(slow, **key)).status != 202 and time.monotonic() < deadline:
        time.sleep(0.2)
    job = f"/api/v1/jobs/{first.json['id']}"
    connection = http.client.HTTPConnection("127.0.0.1", closed.port, timeout=60)
    connection.request("GET", f"{job}/events", headers=key)
    assert connection.getresponse().status == 200
    second = closed.get(f"{job}/events", **key)
    assert second.status == 429
    assert "follow jobs" in second.error["message"]
    connection.close()
    while not closed.get(job, **key).json["crystals"] and time.monotonic() < deadline:
        time.sleep(0.2)
    statuses: list[int] = []
    threads = [
        threading.Thread(target=lambda: statuses.append(closed.get(f"{job}/archive", **key).status))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(statuses) == {200, 429}
    closed.send("DELETE", job, headers=key)


def test_many_clients_share_the_engine(served):
    found = []

    def one(seed: int) -> None:
        for _ in range(40):
            answer = served.post({**RUTILE, "seed": seed, "n": 2})
            if answer.status == 202:
                found.append(served.over(answer.json["id"]))
                return
            assert answer.status == 429
            time.sleep(0.5)

    threads = [threading.Thread(target=one, args=(seed,)) for seed in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [state["state"] for state in found] == ["done"] * 12
    assert all(len(state["crystals"]) == 2 for state in found)
