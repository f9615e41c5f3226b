"""A process that asks the oracle for ratings and writes them; tests run several of it, kill and measure it.

python asking_worker.py LEDGER URL COUNT CONCURRENCY OUTPUT [BYTES OF EACH REQUEST]

With the ledger `-` it sends the same requests by the official client alone, and keeps nothing: a measure to compare
with.
"""

import asyncio
import itertools
import re
import sys
import time
from pathlib import Path

import openai
from judging import cases, request

from utils.llm.asking import Question, RateLimits, ask
from utils.llm.ledger import Ledger
from utils.llm.providers import open_provider, request_of
from utils.records.files import write_jsonl
from utils.reporting import run_program, say


def questions(count, size=0):
    """Ratings, each of a body of its own that has some `size` bytes more than it needs."""
    some = list(cases(20, 1, seed=5))
    for number, (_, turns, texts) in zip(range(count), itertools.cycle(some), strict=False):
        messages = request("rating", turns, texts[0])
        body = request_of(
            "openai", "oracle", messages, temperature=0.0, max_tokens=40, user=f"row {number}" + " " * size
        )
        yield Question(body, "rating", {"low": 1, "high": 7})


def main():
    path, url, count, concurrency, output, *size = sys.argv[1:]
    wanted = int(count), *map(int, size)
    if path == "-":
        began = time.process_time()
        asyncio.run(send_alone(questions(*wanted), url, int(concurrency)))
        say(f"cpu {time.process_time() - began:.3f} s, peak {peak_mib():.1f} MiB")
        return
    limits = RateLimits(concurrency=int(concurrency), timeout=1.5, backoff=0.02, max_retries=12)
    with Ledger(path) as ledger:
        began = time.process_time()
        ask(questions(*wanted), ledger, open_provider("openai", url), limits)
        cpu = time.process_time() - began
        found = (ledger.outcome(q.request.key, q.parser, q.parser_args) for q in questions(*wanted))
        write_jsonl(Path(output), ({"row": n, "state": o.state, "value": o.value} for n, o in enumerate(found)))
    say(f"cpu {cpu:.3f} s, peak {peak_mib():.1f} MiB")


async def send_alone(asked, url, concurrency):
    waiting = iter(asked)
    settings = {"api_key": "none", "max_retries": 0, "http_client": openai.DefaultAsyncHttpxClient(trust_env=False)}
    async with openai.AsyncOpenAI(base_url=url, **settings) as client:

        async def work():
            for question in waiting:
                await client.chat.completions.create(**question.request.body)

        await asyncio.gather(*(work() for _ in range(concurrency)))


def peak_mib():
    """Of this process since it became this program; what getrusage knows includes its parent before."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024


if __name__ == "__main__":
    run_program(main)
