"""A process that asks the oracle for ratings and writes them; tests run several of it, kill and measure it.

python asking_worker.py LEDGER URL COUNT CONCURRENCY OUTPUT [BYTES OF EACH REQUEST]
"""

import itertools
import re
import sys
from pathlib import Path

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
    limits = RateLimits(concurrency=int(concurrency), timeout=1.5, backoff=0.02, max_retries=12)
    with Ledger(path) as ledger:
        ask(questions(*wanted), ledger, open_provider("openai", url), limits)
        found = (ledger.outcome(q.request.key, q.parser, q.parser_args) for q in questions(*wanted))
        write_jsonl(Path(output), ({"row": n, "state": o.state, "value": o.value} for n, o in enumerate(found)))
    say(f"peak {peak_mib():.1f} MiB")


def peak_mib():
    """Of this process since it became this program; what getrusage knows includes its parent before."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024


if __name__ == "__main__":
    run_program(main)
