"""The oracle over HTTP: real clients of OpenAI and Anthropic, each fault as a client sees it, and what is counted."""

import hashlib
import json
import time

import anthropic
import openai
import pytest
from judging import cases, request
from oracle import anthropic_client, control, openai_client, oracle
from world_examples import GOOD, RIGHT, WRONG

from utils.world.judge import Judge
from utils.world.serving.faults import KINDS

RATING = {"model": "oracle", "messages": request("rating", WRONG, GOOD), "temperature": 0}
SCHEMA = {"type": "object", "properties": {"rating": {"type": "integer"}}, "required": ["rating"]}
APIS = pytest.mark.parametrize("api", ["openai", "anthropic"])


@pytest.fixture(scope="module")
def url():
    with oracle() as address:
        yield address


class Asker:
    """The same request through either client: its native answer, and the text of it."""

    def __init__(self, api, url, **options):
        self.api, self.errors = api, openai if api == "openai" else anthropic
        self.client = (openai_client if api == "openai" else anthropic_client)(url, **options)

    def ask(self, model="oracle", messages=RATING["messages"], **rest):
        if self.api == "openai":
            return self.client.chat.completions.create(model=model, messages=messages, temperature=0, **rest)
        system, user = messages
        rest = {"max_tokens": 1000, "extra_body": {"temperature": 0}, **rest}
        return self.client.messages.create(model=model, system=system["content"], messages=[user], **rest)

    def text(self, answer):
        if self.api == "openai":
            return answer.choices[0].message.content
        return "".join(block.text for block in answer.content)

    def ended(self, answer):
        return answer.choices[0].finish_reason if self.api == "openai" else answer.stop_reason


# --- what a client gets ---


@APIS
def test_it_answers_as_the_judge(url, api):
    asker = Asker(api, url)
    for _, turns, texts in cases(20, 2, seed=1):
        for task, shown in (("rating", texts[:1]), ("preference", texts), ("order", texts), ("critique", texts[:1])):
            messages = request(task, turns, *shown)
            assert asker.text(asker.ask(messages=messages)) == Judge().reply(messages)


@APIS
def test_a_teacher_continues_a_dialogue(url, api):
    turns = [{"role": turn.role, "content": turn.content} for turn in RIGHT]
    asker = Asker(api, url)
    for name in ("strong", "weak"):
        if api == "openai":
            answer = asker.client.chat.completions.create(model=name, messages=turns, temperature=0)
        else:
            extra = {"temperature": 0}
            answer = asker.client.messages.create(model=name, messages=turns, max_tokens=99, extra_body=extra)
        assert asker.text(answer) == Judge().reply(turns, name) and answer.model == name


def test_openais_shape(url):
    raw = openai_client(url).chat.completions.with_raw_response.create(**RATING)
    answer = raw.parse()
    assert raw.headers["x-request-id"].startswith("req_") and answer.id.startswith("chatcmpl-")
    assert (answer.object, answer.model, answer.choices[0].finish_reason) == ("chat.completion", "oracle", "stop")
    said = sum(len(message["content"]) for message in RATING["messages"])
    assert answer.usage.prompt_tokens == -(-said // 4) and answer.usage.completion_tokens == len("Rating: 7") // 4 + 1
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert [model.id for model in openai_client(url).models.list()] == ["oracle", "strong", "weak"]


def test_anthropics_shape(url):
    raw = Asker("anthropic", url).client.messages.with_raw_response.create(
        model="oracle", max_tokens=50, messages=[RATING["messages"][1]]
    )
    answer = raw.parse()
    assert raw.headers["request-id"].startswith("req_") and answer.id.startswith("msg_")
    assert (answer.type, answer.role, answer.stop_reason) == ("message", "assistant", "end_turn")
    assert answer.content[0].text == "Rating: 7" and answer.usage.output_tokens == 3


def test_structured_outputs(url):
    form = {"type": "json_schema", "json_schema": {"name": "rating", "schema": SCHEMA, "strict": True}}
    answer = Asker("openai", url).ask(response_format=form)
    assert json.loads(answer.choices[0].message.content) == {"rating": 7}
    config = {"format": {"type": "json_schema", "schema": SCHEMA}}
    answer = Asker("anthropic", url).ask(output_config=config)
    assert json.loads(answer.content[0].text) == {"rating": 7}


@APIS
def test_limits_cut_an_answer(url, api):
    asker, messages = Asker(api, url), request("critique", WRONG, "Not quite.")
    whole = asker.text(asker.ask(messages=messages))
    short = asker.ask(messages=messages, max_tokens=3)
    assert asker.text(short) == whole[:12] and asker.ended(short) in ("length", "max_tokens")
    name = "stop" if api == "openai" else "stop_sequences"
    stopped = asker.ask(messages=messages, **{name: [" help", " with"]})
    assert asker.text(stopped) == "It should" and asker.ended(stopped) in ("stop", "stop_sequence")
    assert api == "openai" or stopped.stop_sequence == " help"


def test_samples_of_a_teacher_differ_and_judgements_do_not(url):
    client, turns = openai_client(url), [{"role": turn.role, "content": turn.content} for turn in RIGHT]
    create = client.chat.completions.create

    def texts(**call):
        return {create(**call).choices[0].message.content for _ in range(8)}

    assert len(texts(model="strong", messages=turns, temperature=0)) == 1
    assert len(texts(model="strong", messages=turns, temperature=0.9)) > 3
    assert len(texts(**RATING | {"temperature": 0.9})) == 1
    firsts = [{"temperature": t / 10, "seed": seed} for t in (5, 6, 7, 8) for seed in (1, 2)]
    said = {create(model="strong", messages=turns, **each).choices[0].message.content for each in firsts}
    assert len(said) > 3  # another temperature or seed draws anew


# --- errors ---


@APIS
def test_an_unknown_model_is_404(url, api):
    asker = Asker(api, url)
    with pytest.raises(asker.errors.NotFoundError, match="'gpt-9' does not exist; known: oracle, strong, weak"):
        asker.ask(model="gpt-9")
    with oracle(any_model=True) as generous:
        for name in ("gpt-4", "gpt-3.5-turbo", "claude-9"):
            assert asker.text(Asker(api, generous).ask(model=name)) == "Rating: 7"


@APIS
def test_a_wrong_key_is_401(api):
    with oracle(api_key="right") as url:
        asker = Asker(api, url, key="wrong")
        with pytest.raises(asker.errors.AuthenticationError, match="missing or wrong") as found:
            asker.ask()
        assert "right" not in str(found.value)
        assert asker.text(Asker(api, url, key="right").ask()) == "Rating: 7"
        post = anthropic_client(url, key="wrong", headers={"x-api-key": "right"}).post
        with pytest.raises(anthropic.BadRequestError):  # an older client's header: let in
            post("/v1/messages", body={}, cast_to=object)
        assert control(url, "counts")["requests"] == 2  # what is refused at the door asked nothing


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"messages": []}, "at least one message"),
        ({"messages": [{"role": "judge", "content": "?"}]}, "role is 'judge'"),
        ({"messages": [{"role": "user", "content": 4}]}, "content is 4; expected text"),
        ({"n": 3}, "n is 3"),
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"stop": [7]}, r"stop is \[7\]"),
        ({"model": None}, "model is None"),
    ],
)
def test_what_cannot_be_asked_is_400(url, wrong, complaint):
    with pytest.raises(openai.BadRequestError, match=complaint):
        openai_client(url).chat.completions.create(**RATING | wrong)


def test_errors_have_the_bodies_of_their_api(url):
    with pytest.raises(openai.NotFoundError) as found:
        Asker("openai", url).ask(model="x")
    assert found.value.body["code"] == "model_not_found" and found.value.body["type"] == "invalid_request_error"
    with pytest.raises(anthropic.NotFoundError) as found:
        Asker("anthropic", url).ask(model="x")
    assert found.value.body["error"]["type"] == "not_found_error"
    with pytest.raises(anthropic.BadRequestError, match="max_tokens: Field required"):
        anthropic_client(url).post("/v1/messages", body={"model": "oracle", "messages": []}, cast_to=object)


# --- faults ---


def seen(api, fault, timeout=10, linger=0.0):
    """(what a client gets when only this goes wrong, what the server counted)."""
    with oracle(faults=f"{fault}=1", slow=0.4, retry_after=0.25) as url:
        asker = Asker(api, url, timeout=timeout)
        try:
            outcome = asker.ask()
        except (openai.OpenAIError, anthropic.AnthropicError, json.JSONDecodeError) as error:
            outcome = error
        time.sleep(linger)
        counts = control(url, "counts")
    assert counts["requests"] == 1 and counts["faults"] == {fault: 1}
    return asker, outcome, counts["answered"]


@APIS
def test_too_many_requests(api):
    asker, error, answered = seen(api, "429")
    assert isinstance(error, asker.errors.RateLimitError) and "retry-after" not in error.response.headers
    asker, error, _ = seen(api, "429-retry-after")
    assert isinstance(error, asker.errors.RateLimitError) and error.response.headers["retry-after"] == "0.25"
    assert answered == 0


@APIS
def test_an_error_of_the_server(api):
    asker, error, answered = seen(api, "500")
    assert isinstance(error, asker.errors.InternalServerError) and answered == 0
    body = error.body if api == "openai" else error.body["error"]
    assert body["type"] == {"openai": "server_error", "anthropic": "api_error"}[api]


@APIS
def test_no_answer_in_time(api):
    asker, error, answered = seen(api, "time-out", timeout=0.3)
    assert isinstance(error, asker.errors.APITimeoutError) and answered == 0


@APIS
def test_a_connection_broken_in_the_middle(api):
    asker, error, answered = seen(api, "reset")
    assert isinstance(error, asker.errors.APIConnectionError) and answered == 0
    assert "ReadError" in repr(error.__cause__)


@APIS
def test_an_answer_that_is_no_json(api):
    _, error, answered = seen(api, "malformed")
    assert isinstance(error, Exception) and answered == 0


@APIS
def test_an_empty_answer(api):
    asker, answer, answered = seen(api, "empty")
    assert asker.text(answer) == "" and asker.ended(answer) in ("stop", "end_turn") and answered == 1


def test_refusals():
    with oracle(faults="refusal=1") as url:
        asker, forms = Asker("openai", url), set()
        for _, turns, (text,) in cases(12, 1):
            choice = asker.ask(messages=request("rating", turns, text)).choices[0]
            forms.add((choice.finish_reason, choice.message.content, choice.message.refusal is not None))
        assert forms == {("stop", None, True), ("content_filter", "", False)}
        answer = Asker("anthropic", url).ask()
        assert answer.stop_reason == "refusal" and answer.content == []
        assert control(url, "counts")["answered"] == 13


@APIS
def test_a_slow_answer(api):
    asker, answer, answered = seen(api, "slow")
    assert asker.text(answer) == "Rating: 7" and answered == 1
    asker, error, answered = seen(api, "slow", timeout=0.1, linger=0.5)
    assert isinstance(error, asker.errors.APITimeoutError) and answered == 0  # a client that left got no answer


def test_faults_are_drawn_by_request_and_attempt():
    """Two servers with one seed fail alike, whatever the order of requests; another attempt is another draw."""
    rates = ",".join(f"{kind}={0.5 / 7}" for kind in KINDS if kind not in ("time-out", "slow"))
    bodies = [RATING | {"messages": request("rating", turns, text)} for _, turns, (text,) in cases(40, 1)]
    runs = []
    for order in (1, -1):
        with oracle(faults=rates, seed=5) as url:
            client = openai_client(url)
            for _ in range(3):
                for body in bodies[::order]:
                    try:
                        client.chat.completions.create(**body)
                    except (openai.OpenAIError, json.JSONDecodeError):
                        continue
            runs.append(control(url, "counts"))
    for counted in runs:
        for tally in (counted, *counted["bodies"].values()):
            del tally["good"]  # ids in the order of requests
    assert runs[0] == runs[1] and set(runs[0]["faults"]) == set(KINDS) - {"time-out", "slow"}
    assert 40 < sum(runs[0]["faults"].values()) < 80  # 60 of 120, give or take 3.6 standard deviations
    assert len({json.dumps(tally["faults"]) for tally in runs[0]["bodies"].values()}) > 7


def test_counts_are_kept_by_body(url):
    with oracle() as url:
        for _ in range(3):
            openai_client(url).chat.completions.create(**RATING)
        with pytest.raises(openai.NotFoundError):
            openai_client(url).chat.completions.create(**RATING | {"model": "x"})
        canonical = json.dumps(RATING, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        counts = control(url, "counts")
        assert counts["bodies"][hashlib.sha256(canonical.encode()).hexdigest()] == {
            "requests": 3,
            "answered": 3,
            "faults": {},
            "good": ["req_1", "req_2", "req_3"],
        }
        assert (counts["requests"], counts["answered"], counts["faults"]) == (4, 3, {"404": 1})


def test_faults_and_latency_can_be_set_while_it_runs():
    with oracle() as url:
        assert control(url, "faults", {"500": 1, "latency": 0.3}) == {"faults": {"500": 1.0}, "latency": 0.3}
        with pytest.raises(openai.InternalServerError):
            openai_client(url).chat.completions.create(**RATING)
        assert control(url, "faults", {}) == {"faults": {}, "latency": 0.3}
        with pytest.raises(openai.APITimeoutError):
            openai_client(url, timeout=0.1).chat.completions.create(**RATING)
        for wrong in ({"5OO": 1}, {"500": 2}, {"500": "often"}, {"500": 0.7, "429": 0.7}, {"latency": -1}, [1]):
            with pytest.raises(Exception, match="400"):
                control(url, "faults", wrong)
