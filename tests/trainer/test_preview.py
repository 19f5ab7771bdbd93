"""What a preview shows: every token once, in whole characters, trained ones marked; in a terminal and as a page."""

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast
from typer.testing import CliRunner

from anneal_cli.__main__ import app
from anneal_trainer.data.pieces import IGNORED, Tokens
from anneal_trainer.preview import page, terminal
from anneal_trainer.preview.view import Preview, Segment, Shown, segments
from trainer.training import alpaca_rows, job, write_jsonl

TEXT = "Grüße, 世界! 👩‍🚀 one  two\n\tthree"


def byte_level() -> Any:
    """Single bytes are tokens, so that one character is several of them."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(["one two"], trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>")


def prefix_space() -> Any:
    """A word carries the space before it, and the first one has one too."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.train_from_iterator(
        [TEXT, "one two three"] * 4, trainers.UnigramTrainer(vocab_size=60, unk_token="<unk>")
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>")


@pytest.mark.parametrize("make", [byte_level, prefix_space], ids=["byte-level", "prefix-space"])
def test_segments_hold_every_token_and_the_whole_text(make: Any) -> None:
    """Ids joined are the sequence, texts joined are what it decodes to, and no segment is half a character."""
    tokenizer = make()
    ids = tokenizer(TEXT)["input_ids"]
    found = segments(tokenizer, Tokens(ids, list(ids)))
    assert [i for segment in found for i in segment.ids] == ids
    assert "".join(segment.text for segment in found) == tokenizer.decode(ids)
    assert not any("\ufffd" in segment.text for segment in found)


def test_trained_and_special_tokens_are_marked() -> None:
    """A label marks a token as trained, but never the first one, which nothing predicts."""
    tokenizer = byte_level()
    ids = [*tokenizer("abc")["input_ids"], tokenizer.eos_token_id]
    found = segments(tokenizer, Tokens(ids, [ids[0], IGNORED, ids[2], ids[3]]))
    assert [(segment.trained, segment.special) for segment in found] == [
        (False, False), (False, False), (True, False), (True, True),
    ]  # fmt: skip


NASTY = Segment("<script>alert('x')</script>\x1b[31m", (1, 2), trained=True, special=False)
PREVIEW = Preview(
    "job<b>",
    8,
    (
        Shown(0, "data.jsonl, line 1", "alpaca", (Segment("ask\n", (7,), trained=False, special=False), NASTY)),
        Shown(0, "data.jsonl, line 2", problem="output must be text, got <null>"),
    ),
    packs=((0,),),
    notes=("a note",),
)


class Tags(HTMLParser):
    """Every tag of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note one."""
        self.found.append((tag, dict(attrs)))


def test_the_page_needs_nothing_else_and_runs_nothing() -> None:
    """No script and no address, whatever the data holds; the ids are there."""
    text, tags = page.html(PREVIEW), Tags()
    tags.feed(text)
    names = {tag for tag, _ in tags.found}
    assert names.isdisjoint({"script", "link", "img", "iframe"})
    assert not any({"src", "href", "onclick"} & attributes.keys() for _, attributes in tags.found)
    assert "&lt;script&gt;" in text
    assert ("s", {"data-i": "1 2"}) in tags.found
    assert "output must be text, got &lt;null&gt;" in text


def test_a_terminal_without_colour_brackets_what_is_trained() -> None:
    """Control characters of the data cannot act; problems, packs and notes are lines."""
    lines = list(terminal.lines(PREVIEW, colour=False, ids=True))
    assert lines[0] == "── data.jsonl, line 1 · alpaca · 3 tokens, 2 trained"
    assert lines[1:3] == ["ask↵", "[7]«<script>alert('x')</script>\\x1b[31m[1 2]»"]
    assert "── data.jsonl, line 2: output must be text, got <null>" in lines
    assert lines[-2].startswith("pack 1   ████████████████████████····")
    assert lines[-2].endswith("3/8 tokens, rows 1")
    assert lines[-1] == "note: a note"


def test_of_a_prompt_nothing_is_said_of_training() -> None:
    """Its answers will be; a row that is dropped because nothing of it is trained still says so."""
    prompt = Shown(0, "a", "prompt", (Segment("ab", (1, 2), trained=False, special=False),))
    for row, said in (
        (prompt, "2 tokens"),
        (prompt.but(fate="dropped: no token of it is trained"), "2 tokens, 0 trained"),
    ):
        shown = Preview("job", 8, (row,))
        assert next(terminal.lines(shown, colour=False, ids=False)) == f"── a · prompt · {said}"
        assert f'<p class="facts">prompt · {said}</p>' in page.html(shown)


def test_colours_end_with_their_line() -> None:
    """A background that ran on would fill the terminal to its border."""
    for line in terminal.lines(PREVIEW, colour=True, ids=False):
        assert line.count("\x1b[0m") == line.count("\x1b[") - line.count("\x1b[0m")


def invoke(storage: Path, *options: str, **changes: Any) -> Any:
    """`anneal preview` of a job on `storage`."""
    manifest = storage / "job.json"
    made = job(**changes)
    manifest.write_text(
        json.dumps(
            {"apiVersion": made.api_version, "kind": made.kind, "metadata": made.metadata} | {"spec": made.spec.dump()}
        )
    )
    return CliRunner().invoke(app, ["preview", str(manifest), "--volume", f"runs={storage}", *options])


def test_the_command_shows_the_first_rows(storage: Path) -> None:
    """As many as asked for, of every source, cut as training cuts them."""
    result = invoke(storage, "-n", "2", "--json", training={"sequenceLength": 64})
    assert result.exit_code == 0, result.stderr
    rows = json.loads(result.stdout)["rows"]
    assert [row["place"] for row in rows] == [f"volume://runs/data.jsonl, line {number}" for number in (1, 2)]
    assert all(row["tokens"] == 64 and row["cut"] for row in rows)
    answers = ["".join(part["text"] for part in row["segments"] if part["trained"]) for row in rows]
    assert all(row["output"].startswith(answer) for row, answer in zip(alpaca_rows(), answers, strict=False))


def test_a_row_that_cannot_be_used_is_shown_with_its_problem(storage: Path) -> None:
    """The others are shown all the same, and the exit code says that something is wrong."""
    write_jsonl(storage / "data.jsonl", [{"instruction": "a", "output": None}, *alpaca_rows(1)])
    result = invoke(storage, "-n", "2")
    assert result.exit_code == 1
    assert "line 1: output must be text, got null" in result.stdout
    assert "RED" in result.stdout


def test_a_line_that_cannot_be_read_is_named_once(storage: Path) -> None:
    """The place is the problem's own, file and line."""
    (storage / "data.jsonl").write_text(json.dumps(alpaca_rows(1)[0]) + "\n{broken\n")
    result = invoke(storage, "-n", "3")
    assert result.stdout.count("data.jsonl, line 2") == 1
    assert "── volume://runs/data.jsonl, line 2: " in result.stdout


def test_a_page_is_written(storage: Path) -> None:
    """--html writes the file and says where."""
    result = invoke(storage, "--html", str(storage / "page.html"))
    assert result.exit_code == 0
    assert result.stderr.endswith(f"written: {storage / 'page.html'}\n")
    assert (storage / "page.html").read_text().count("<h2>") == 3


def test_evaluation_sources_are_shown_behind_the_others(storage: Path) -> None:
    """A row of one that cannot be used is told as any other; they share no pack with what is trained."""
    write_jsonl(storage / "eval.jsonl", [*alpaca_rows(1), {"instruction": "a", "output": None}])
    changes = {
        "evaluation": {"datasets": [{"source": "volume://runs/eval.jsonl"}]},
        "training": {"sequenceLength": 256, "packing": True},
    }
    result = invoke(storage, "-n", "2", "--json", **changes)
    found = json.loads(result.stdout)
    assert result.exit_code == 1
    assert [(row["dataset"], row["kind"], row["problem"]) for row in found["rows"]] == [
        (0, "alpaca", ""), (0, "alpaca", ""), (1, "alpaca (evaluation)", ""),
        (1, "alpaca (evaluation)", "output must be text, got null"),
    ]  # fmt: skip
    assert found["packs"][-1] == [2]
    assert len(json.loads(invoke(storage, "--dataset", "0", "--json", **changes).stdout)["rows"]) == 3


def test_a_page_that_cannot_be_written_is_told(storage: Path) -> None:
    """In one line, with what to do."""
    result = invoke(storage, "--html", "/nope/x.html")
    assert result.exit_code == 78
    assert "--html /nope/x.html cannot be written: No such file or directory; name a file in" in result.stderr


def test_a_source_that_the_job_does_not_have_is_refused(storage: Path) -> None:
    """--dataset counts from 0, as the paths in error messages do."""
    result = invoke(storage, "--dataset", "1")
    assert result.exit_code == 64
    assert "--dataset 1: the job has 1, counted from 0" in result.stderr
