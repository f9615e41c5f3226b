"""The oracle's server as a program: how it starts, how it ends, its batches, and how many answers it gives a second."""

import asyncio
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time

import aiohttp
import pytest
from judging import cases, request
from oracle import PROGRAM, control, openai_client, oracle, oracle_program, wait_for
from world_examples import GOOD, WRONG

from utils.world.serving.faults import draw_fault, parse_faults

RATING = {"model": "oracle", "messages": request("rating", WRONG, GOOD), "temperature": 0}


def ask(url):
    return openai_client(url).chat.completions.create(**RATING).choices[0].message.content


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_where_it_listens_and_stops_on_a_signal(tmp_path, number):
    with oracle_program(tmp_path) as (process, url):
        assert ask(url) == "Rating: 7"
        process.send_signal(number)
        out, err = process.communicate(timeout=10)
        assert process.returncode == 0 and f"listening on {url}\n" in out and err == ""
        assert list(tmp_path.iterdir()) == []  # the file of the address went with it


def test_it_stops_in_the_middle_of_answers(tmp_path):
    with oracle_program(tmp_path, "--faults", "time-out=1") as (process, url):
        waiting = socket.create_connection(("127.0.0.1", int(url.split(":")[2].removesuffix("/v1"))))
        body = json.dumps(RATING).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        waiting.sendall(head + body)
        wait_for(lambda: control(url, "counts")["requests"] == 1)
        start = time.monotonic()
        process.terminate()
        assert process.wait(10) == 0 and time.monotonic() - start < 5
        waiting.close()


def test_it_does_not_outlive_its_parent(tmp_path):
    """A shell starts it and is killed; another one that is only named ends."""
    words = f"{sys.executable} {PROGRAM} --port 0 --url_file {tmp_path}/url"
    shell = subprocess.Popen(["bash", "-c", f"{words} --parent_pid $$ & sleep 60"], start_new_session=True)
    other = subprocess.Popen(["sleep", "60"])
    try:
        wait_for((tmp_path / "url").exists)
        with oracle_program(tmp_path, "--parent_pid", other.pid) as (process, url):
            assert ask(url) == "Rating: 7"
            shell.kill()  # and not reaped
            wait_for(lambda: not (tmp_path / "url").exists(), 10)
            assert process.poll() is None
            other.kill()
            other.wait()
            assert process.wait(10) == 0
    finally:
        os.killpg(shell.pid, signal.SIGKILL)
        shell.wait()
        other.kill()


# --- batches ---


def lines(bodies):
    rows = [
        {"custom_id": f"row-{n}", "method": "POST", "url": "/v1/chat/completions", "body": body}
        for n, body in enumerate(bodies)
    ]
    return "".join(json.dumps(row) + "\n" for row in rows)


def finished(client, text, **rest):
    file = client.files.create(file=("requests.jsonl", io.BytesIO(text.encode())), purpose="batch")
    endpoint = "/v1/chat/completions"
    batch = client.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window="24h", **rest)
    assert batch.status == "validating"
    wait_for(lambda: client.batches.retrieve(batch.id).status not in ("validating", "in_progress", "finalizing"), 10)
    return client.batches.retrieve(batch.id)


def content(client, file):
    return [json.loads(line) for line in client.files.content(file).text.splitlines()] if file else []


def test_a_batch():
    bodies = [RATING | {"messages": request("rating", turns, text)} for _, turns, (text,) in cases(20, 1)]
    with oracle() as url:
        client = openai_client(url)
        batch = finished(client, lines(bodies), metadata={"run": "one"})
        assert (batch.status, batch.metadata, batch.error_file_id) == ("completed", {"run": "one"}, None)
        assert (batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed) == (20, 20, 0)
        rows = content(client, batch.output_file_id)
        assert [row["custom_id"] for row in rows] == [f"row-{n}" for n in range(20)]
        for body, row in zip(bodies, rows, strict=True):
            online = client.chat.completions.create(**body)
            assert row["response"]["body"]["choices"][0]["message"]["content"] == online.choices[0].message.content
            assert row["response"]["status_code"] == 200 and row["error"] is None
        assert control(url, "counts")["answered"] == 40
        assert [each.id for each in client.batches.list(limit=1)] == [batch.id]  # the client asks for further pages
        second = finished(client, lines(bodies[:1]))
        assert [each.id for each in client.batches.list(limit=1)] == [second.id, batch.id]


def test_what_fails_in_a_batch_is_in_its_error_file():
    rates = {"429": 0.2, "500": 0.2, "time-out": 0.2, "refusal": 0.2}
    bodies = [RATING | {"messages": request("rating", turns, text)} for _, turns, (text,) in cases(60, 1)]
    with oracle(faults=",".join(f"{kind}={rate}" for kind, rate in rates.items())) as url:
        client = openai_client(url)
        batch = finished(client, lines(bodies))
        good, bad = content(client, batch.output_file_id), content(client, batch.error_file_id)
        counted = control(url, "counts")
    assert (batch.request_counts.completed, batch.request_counts.failed) == (len(good), len(bad))
    assert {row["custom_id"] for row in good} | {row["custom_id"] for row in bad} == {f"row-{n}" for n in range(60)}
    ends = [row["response"]["status_code"] if row["response"] else row["error"]["code"] for row in bad]
    for end, kind in ((429, "429"), (500, "500"), ("batch_expired", "time-out")):
        assert ends.count(end) == counted["faults"][kind] > 3
    assert len(good) == counted["answered"]


def test_a_batch_with_wrong_lines_fails_as_a_whole():
    with oracle() as url:
        client = openai_client(url)
        batch = finished(client, lines([RATING]) + "{\n" + lines([RATING]))
        assert batch.status == "failed" and batch.output_file_id is None
        found = [(error.line, error.code) for error in batch.errors.data]
        assert found == [(2, "invalid_json_line"), (3, "duplicate_custom_id")]
        assert control(url, "counts")["requests"] == 0


def test_a_batch_can_be_cancelled():
    with oracle(latency=0.3) as url:
        client = openai_client(url)
        file = client.files.create(file=("requests.jsonl", lines([RATING]).encode()), purpose="batch")
        batch = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
        wait_for(lambda: client.batches.retrieve(batch.id).status == "in_progress")
        assert client.batches.cancel(batch.id).status == "cancelled"
        time.sleep(0.5)
        assert client.batches.retrieve(batch.id).status == "cancelled"
        assert control(url, "counts")["requests"] == 0
        with pytest.raises(Exception, match="there is no batch_x"):
            client.batches.retrieve("batch_x")


# --- faults, drawn ---


def test_the_rates_of_faults():
    rates = parse_faults("429=0.1, reset=0.05,slow=0")
    assert rates == {"429": 0.1, "reset": 0.05, "slow": 0.0}
    drawn = [draw_fault(rates, 1, f"key {n}", 1) for n in range(20_000)]
    for kind, rate in rates.items():
        assert abs(drawn.count(kind) - rate * 20_000) <= 3.5 * (20_000 * rate * (1 - rate)) ** 0.5
    assert drawn.count(None) == 20_000 - drawn.count("429") - drawn.count("reset")
    assert draw_fault({"500": 1.0}, 1, "key", 1) == "500" and draw_fault({}, 1, "key", 1) is None
    turned = dict(reversed(rates.items()))  # the order in which the rates are given means nothing
    assert [draw_fault(turned, 1, f"key {n}", 1) for n in range(1000)] == drawn[:1000]
    assert len({draw_fault({"500": 0.5}, 1, "key", attempt) for attempt in range(20)}) == 2


# --- speed ---


def test_a_request_costs_little(tmp_path):
    """Preferences, 64 at a time: processor time of the server, measured 0.2 to 0.4 ms a request; five times as much
    fails here."""
    bodies = [RATING | {"messages": request("preference", turns, *texts)} for _, turns, texts in cases(1500, 2)]

    async def load(url):
        gate = asyncio.Semaphore(64)
        async with aiohttp.ClientSession() as session:

            async def one(body):
                async with gate, session.post(f"{url}/chat/completions", json=body) as answer:
                    return (await answer.json())["choices"][0]["message"]["content"]

            return await asyncio.gather(*map(one, bodies))

    with oracle_program(tmp_path) as (process, url):
        ask(url)
        before = cpu_seconds(process.pid)
        answers = asyncio.run(load(url))
        spent = cpu_seconds(process.pid) - before
    assert len(answers) == 1500 and all(answer.startswith("Answer: ") for answer in answers)
    assert spent / 1500 < 0.002


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat") as file:
        user, system = file.read().rsplit(")", 1)[1].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
