"""Tokens on disk: what goes in comes out; the cache hits, misses and says why; one process makes, the others wait."""

import json
import threading
import time

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from utils.arguments import parse
from utils.arguments.options import DataArguments
from utils.errors import UserError
from utils.records import Answer, Message, Record, RecordError, comparison
from utils.records.files import write_jsonl
from utils.tokens.store import DataPart, TokenSettings, TokenStore, build, prepare, preparing
from utils.tokens.templates import LengthLimits, Renderer, Row

WIDE = LengthLimits(500, 500, 1000, "keep_end")


@pytest.fixture(scope="module")
def renderer():
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        [], trainers.BpeTrainer(show_progress=False, special_tokens=["</s>"], initial_alphabet=alphabet)
    )
    return Renderer(PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", pad_token="</s>"), "vicuna")


def ask(text):
    return (Message("user", text),)


def pairs(count):
    return [
        comparison(ask(f"question {n}"), f"good {n}", "bad " * (n % 3 + 1), where=f"rows.jsonl:{n + 1}")
        for n in range(count)
    ]


def same(group, other):
    trained = [None if g.prompt_trained is None else g.prompt_trained.tolist() for g in (group, other)]
    return (
        group.prompt.tolist() == other.prompt.tolist()
        and [a.tolist() for a in group.answers] == [a.tolist() for a in other.answers]
        and group.pairs == other.pairs
        and trained[0] == trained[1]
    )


def made(records, kind, renderer, limits, folder, **more):
    return build(records, TokenSettings(kind, renderer, limits, **more), folder)


def test_groups_come_out_as_they_went_in(tmp_path, renderer, monkeypatch):
    monkeypatch.setattr(preparing, "BATCH", 3)  # several batches
    records = pairs(8)
    store = made(records, "comparisons", renderer, WIDE, tmp_path / "store")
    whole = [renderer.group(record, [0, 1], [(0, 1)]) for record in records]
    assert len(store) == 8 and all(same(a, b) for a, b in zip(store, whole, strict=True))
    assert same(store[-1], whole[7]) and same(store[np.int64(2)], whole[2])
    with pytest.raises(IndexError):
        store[8]
    assert store.tokens.tolist() == [g.tokens for g in whole] and store.tokens.dtype == np.int64
    assert store.trained_tokens.tolist() == [g.trained_tokens for g in whole]
    assert store.pairs.tolist() == [1] * 8
    assert store.record_ids == [record.id for record in records]
    assert isinstance(store._ids, np.memmap) and store[0].prompt.dtype == np.int32
    assert [path.name for path in tmp_path.iterdir()] == ["store"]  # nothing beside it remains


def test_demonstrations_of_every_turn(tmp_path, renderer):
    dialogue = (*ask("one"), Message("assistant", "two"), *ask("three"))
    records = [Record(dialogue, (Answer("four"),)), Record(ask("five"), (Answer("six"),))]
    store = made(records, "demonstrations", renderer, WIDE, tmp_path / "store", train_on="all")
    assert same(store[0], renderer.group(records[0], [0], train_on="all"))
    assert store[0].prompt_trained.sum() == len(" two") + 1  # one token a letter, and the stop token
    assert not store[1].prompt_trained.any()
    assert store.trained_tokens.tolist() == [len(" two four") + 2, len(" six") + 1]


def test_prompts_have_no_answers(tmp_path, renderer):
    store = made(pairs(2), "prompts", renderer, WIDE, tmp_path / "store")
    assert store[1].prompt.tolist() == renderer.prompt_ids(ask("question 1")) and store[1].answers == ()
    assert store.trained_tokens.tolist() == [0, 0]


def test_the_table_says_how_many_and_which(tmp_path, renderer):
    records = [*pairs(3), comparison(ask("x"), "same", "same", where="rows.jsonl:9"), Record(ask("y"), (Answer(""),))]
    store = made(records, "comparisons", renderer, LengthLimits(500, 7, 1000, "keep_end"), tmp_path / "store")
    table = store.table
    assert (table["records"], table["groups"], table["tokens"]) == (5, 3, int(store.tokens.sum()))
    assert table["counts"] == {
        "empty answers left out": 1,
        "records dropped: no decided pair of answers with text": 2,
        "answers cut at their end": 5,  # " good 0" is seven letters and then its stop token; " bad" alone fits
    }
    assert table["examples"]["records dropped: no decided pair of answers with text"] == ["rows.jsonl:9", records[4].id]


def test_nothing_left_is_an_error_that_says_why(tmp_path, renderer):
    empty = [Record(ask("x"), (Answer(""), Answer(" ")))]
    with pytest.raises(UserError, match="none of 1 records can be used as demonstrations: .*no answer with text"):
        made(empty, "demonstrations", renderer, WIDE, tmp_path / "store")
    assert list(tmp_path.iterdir()) == []


def test_a_row_that_the_template_refuses_stops_or_is_counted(tmp_path, renderer):
    rows = [Record(ask("x"), (Answer("a</s>b"),), where="rows.jsonl:1"), Record(ask("x"), (Answer("b"),))]
    with pytest.raises(RecordError, match="rows.jsonl:1: an answer contains '</s>'"):
        made(rows, "demonstrations", renderer, WIDE, tmp_path / "store")
    store = made(rows, "demonstrations", renderer, WIDE, tmp_path / "store", on_bad_row="skip")
    assert len(store) == 1 and store.table["counts"] == {"records skipped: the template refuses them": 1}


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path, renderer):
    (tmp_path / "cache").write_text("a file where a folder is wanted")
    with pytest.raises(UserError, match="cannot be written"):
        made(pairs(1), "prompts", renderer, WIDE, tmp_path / "cache" / "store")


# --- prepare ---


def arguments(path, *flags):
    return parse([DataArguments], ["--data_path", str(path), *flags])[0]


def ready(path, cache, renderer, *flags, kind="comparisons"):
    return prepare(arguments(path, *flags), DataPart("train", stage=2, kind=kind, seed=42), renderer, cache)


def test_cache_hits_and_misses_are_said(tmp_path, renderer, capsys, monkeypatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    data, cache = tmp_path / "rows.jsonl", tmp_path / "cache"
    write_jsonl(data, pairs(5))
    first = ready(data, cache, renderer, "--eval_holdout", "0")
    said = capsys.readouterr().out
    assert "train tokens: made now, no entry for this data" in said and "5 of 5 records" in said
    assert ready(data, cache, renderer, "--eval_holdout", "0").fingerprint == first.fingerprint
    assert "train tokens: from the cache" in capsys.readouterr().out
    ready(data, cache, renderer, "--eval_holdout", "0", "--rebuild_cache", "True")
    assert "made now, because of --rebuild_cache" in capsys.readouterr().out
    lengths = first.folder / "lengths.npy"
    for damage in (lengths.read_bytes()[:-4], (first.folder / "starts.npy").read_bytes(), None):
        lengths.unlink() if damage is None else lengths.write_bytes(damage)  # cut short, another's, gone
        assert len(ready(data, cache, renderer, "--eval_holdout", "0")) == 5
        assert "made now, the entry is not whole" in capsys.readouterr().out
    changes = [("--max_answer_seq_len", "9"), ("--truncation", "drop"), ("--train_on", "all")]
    keys = {ready(data, cache, renderer, "--eval_holdout", "0", *change).fingerprint for change in changes}
    keys.add(ready(data, cache, renderer, "--eval_holdout", "0", kind="prompts").fingerprint)
    keys.add(ready(data, cache, Renderer(renderer.tokenizer, "zephyr"), "--eval_holdout", "0").fingerprint)
    write_jsonl(data, pairs(6))
    keys.add(ready(data, cache, renderer, "--eval_holdout", "0").fingerprint)
    assert len(keys | {first.fingerprint}) == 7


def test_other_local_ranks_wait_for_the_folder(tmp_path, renderer, monkeypatch):
    folder, found = tmp_path / "store", []
    waiting = threading.Thread(target=lambda: found.append(preparing._wait(folder, fresh=False)))
    waiting.start()
    time.sleep(0.3)
    assert waiting.is_alive()
    made(pairs(4), "comparisons", renderer, WIDE, folder)
    waiting.join(10)
    assert len(found[0]) == 4
    about = json.loads((folder / "about.json").read_text())
    (folder / "about.json").write_text(json.dumps({**about, "launcher": -1}))  # made under another launcher
    monkeypatch.setattr(preparing, "PATIENCE", 0.3)
    assert len(preparing._wait(folder, fresh=False)) == 4
    with pytest.raises(UserError, match="local rank 0 has tokenised nothing for 0 s"):
        preparing._wait(folder, fresh=True)


def test_waiting_is_patient_while_batches_come(tmp_path, renderer, monkeypatch):
    monkeypatch.setattr(preparing, "PATIENCE", 0.8)
    monkeypatch.setattr(preparing, "BATCH", 1)

    def slowly():
        for record in pairs(6):
            time.sleep(0.3)
            yield record

    making = threading.Thread(target=lambda: made(slowly(), "prompts", renderer, WIDE, tmp_path / "store"))
    making.start()
    assert len(preparing._wait(tmp_path / "store", fresh=False)) == 6
    making.join()


def test_prepare_on_another_local_rank_makes_nothing(tmp_path, renderer, monkeypatch):
    data = tmp_path / "rows.jsonl"
    write_jsonl(data, pairs(5))
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(preparing, "PATIENCE", 0.3)
    with pytest.raises(UserError, match="local rank 0"):
        ready(data, tmp_path / "cache", renderer, "--eval_holdout", "0")
    monkeypatch.setenv("LOCAL_RANK", "0")
    made = ready(data, tmp_path / "cache", renderer, "--eval_holdout", "0")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert ready(data, tmp_path / "cache", renderer, "--eval_holdout", "0").folder == made.folder


def test_what_killed_runs_left_is_removed(tmp_path, renderer, monkeypatch):
    left = tmp_path / ".store.0123abcd.partial"
    left.mkdir()
    made(pairs(1), "prompts", renderer, WIDE, tmp_path / "store")
    assert left.exists()  # it may be another machine's
    monkeypatch.setattr(preparing, "PATIENCE", -1)
    made(pairs(1), "prompts", renderer, WIDE, tmp_path / "store")
    assert not left.exists()


def test_a_row_is_the_arguments_of_group(renderer):
    record = pairs(1)[0]
    assert same(renderer.group(*Row(record, (0, 1), ((0, 1),))), renderer.group(record, [0, 1], [(0, 1)]))


def test_many_short_rows_take_seconds(tmp_path, renderer):
    started = time.monotonic()
    made(pairs(5000), "comparisons", renderer, WIDE, tmp_path / "store")
    assert (
        time.monotonic() - started < 30
    )  # 100,000 take half a minute on two cores; here a wide margin for a crowded machine
    assert TokenStore(tmp_path / "store").table["records"] == 5000
