import csv
import json
import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from doctune.corpus.division import SplitSettings
from doctune.corpus.instruction_corpus import InstructionParts, Reading, describe_instructions, prepare_instructions
from doctune.corpus.instructions import read_instructions
from doctune.corpus.token_baselines import unigram_losses
from doctune.errors import DataError
from doctune.text.chat import PlainTemplate, TemplateRefusedError

WORDS = [
    "red", "blue", "green", "black", "white", "brown", "pink", "grey", "gold", "rose", "lime", "teal", "navy", "plum",
    "sand", "rust", "mint", "jade", "ruby", "onyx",
]  # fmt: skip


def pair(number):
    word = WORDS[number % len(WORDS)]
    return {"prompt": f"Say {word} {number} times.", "completion": " ".join([word] * (number % 3 + 1))}


def write(path, rows):
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return read_instructions(path)


@pytest.fixture
def prepare(tmp_path, chat_tokenizer):
    tokenizer = chat_tokenizer("plain").backend_tokenizer

    def prepared(train, val=(), test=(), *, max_length=512, too_long="leave_out", template=None, **settings):
        files = [
            tuple([write(tmp_path / f"{name}.jsonl", rows)] if rows else [])
            for name, rows in (("train", train), ("val", val), ("test", test))
        ]
        reading = Reading(tokenizer, template or PlainTemplate("", "</s>"), max_length, too_long)
        split = settings.pop("split", SplitSettings(val=0.2, test=0.2))
        return prepare_instructions(
            InstructionParts(*files), reading, split=split, cache=tmp_path, duplicate_threshold=1, **settings
        )

    return prepared


def reasons(corpus):
    return {row.path: (row.status, row.reason) for row in corpus.left_out()}


ROWS = [pair(number) for number in range(20)]


def test_every_row_ends_in_one_row_of_the_account_and_parts_have_their_shares(prepare, tmp_path):
    corpus = prepare([*ROWS, {"prompt": "x"}])
    corpus.write(tmp_path / "data")
    with (tmp_path / "data/account.csv").open(newline="") as stream:
        account = [*csv.DictReader(stream)]
    assert [row["path"] for row in account] == [f"train.jsonl:{line}" for line in range(1, 22)]
    assert account[-1] | {"group": ""} == {
        "path": "train.jsonl:21", "label": "", "part": "left_out", "status": "missing_key",
        "reason": "line 21: it has 'prompt' and no 'completion'", "group": "",
    }  # fmt: skip
    totals = json.loads((tmp_path / "data/audit.json").read_text())
    assert totals["parts"] == {"train": 12, "val": 4, "test": 4, "left_out": 1}
    assert totals["forms"]["train"] == {"prompt": 12}
    assert pq.read_table(tmp_path / "data/splits.parquet").num_rows == 20
    assert describe_instructions(corpus).startswith("12 train, 4 val, 4 test; left out: 1 missing_key; ")


def test_the_same_rows_in_another_order_get_the_same_parts(prepare):
    parts = {document.id: document.part for document in prepare(ROWS).documents}
    assert {document.id: document.part for document in prepare(ROWS[::-1]).documents} == parts


def test_copies_never_stand_on_two_sides_of_a_split(prepare):
    corpus = prepare(ROWS + ROWS[:6])
    parts = {}
    for document in corpus.documents:
        parts.setdefault(document.group, set()).add(document.part)
    assert all(len(found) == 1 for found in parts.values())
    assert corpus.totals()["duplicate_groups"] == 6
    assert len({document.id for document in corpus.documents}) == 26


def test_training_conversations_of_a_judging_file_are_left_out_with_both_places(prepare):
    corpus = prepare(ROWS[:15], val=ROWS[10:17], test=ROWS[16:])
    assert reasons(corpus) == {
        **{
            f"train.jsonl:{line}": ("in_val_file", f"it stands in val.jsonl:{line - 10}, too") for line in range(11, 16)
        },
        "val.jsonl:7": ("in_test_file", "it stands in test.jsonl:1, too"),
    }
    assert [len(corpus.part(part)) for part in ("train", "val", "test")] == [10, 6, 4]


def test_longer_conversations_are_left_out_or_cut_and_counted(prepare):
    long = {"prompt": "Count.", "completion": "one two three four five " * 20}
    endless = {"prompt": "Count. " * 100, "completion": "one"}
    left_out = prepare([*ROWS, long, endless], max_length=100)
    assert reasons(left_out)["train.jsonl:21"][0] == "too_long"
    assert reasons(left_out)["train.jsonl:21"][1].endswith(" tokens, more than data.max_length=100")
    assert set(reasons(left_out)) == {"train.jsonl:21", "train.jsonl:22"}
    cut = prepare([*ROWS, long, endless], max_length=100, too_long="truncate")
    assert reasons(cut) == {
        "train.jsonl:22": ("too_long", "its prompt alone has the 100 tokens of data.max_length"),
    }
    (row,) = [row for row in cut.account if row.path == "train.jsonl:21"]
    assert (row.status, row.reason, cut.num_truncated) == ("truncated", "cut at data.max_length", 1)
    assert "; 1 cut at the longest length" in describe_instructions(cut)


def test_what_the_template_refuses_is_left_out_with_its_reason(prepare):
    plain = PlainTemplate("", "</s>")

    def template(messages, *, for_answer):
        if "blue" in messages[0].content:
            raise TemplateRefusedError("the chat template refuses it: no blue")
        return plain(messages, for_answer=for_answer)

    assert reasons(prepare(ROWS, template=template)) == {
        "train.jsonl:2": ("template", "the chat template refuses it: no blue")
    }


def test_folds_judge_every_conversation_once(prepare):
    judged = [
        document.id
        for fold in range(4)
        for document in prepare(ROWS, split=SplitSettings(val=0.2, num_folds=4, fold=fold)).part_documents("test")
    ]
    assert sorted(judged) == sorted(document.id for document in prepare(ROWS).documents)


def test_a_saved_split_gives_the_same_parts_and_one_that_leaks_is_refused(prepare, tmp_path):
    first = prepare(ROWS)
    first.write(tmp_path / "first")
    again = prepare(ROWS, split=SplitSettings(file=tmp_path / "first/splits.parquet"))
    assert again.documents == first.documents
    copied = prepare([*ROWS, ROWS[0]])
    table = pq.read_table((copied.write(tmp_path / "copied"), tmp_path / "copied/splits.parquet")[1]).to_pylist()
    first_id = table[0]["id"]
    for row in table:
        if row["id"] == f"{first_id}-2":
            row["part"] = "test" if table[0]["part"] != "test" else "train"
    pq.write_table(pa.Table.from_pylist(table), tmp_path / "leak.parquet")
    with pytest.raises(
        DataError, match=r"leaks: 1 groups of copies stand in more than one part, such as train\.jsonl:1"
    ):
        prepare([*ROWS, ROWS[0]], split=SplitSettings(file=tmp_path / "leak.parquet"))


def test_a_sample_trains_on_the_same_conversations_whatever_their_order(prepare):
    few = prepare(ROWS, max_train=5)
    assert len(few.part("train")) == 5
    assert {row.reason for row in few.left_out()} == {
        "not in a sample of 5 of the 12 conversations of the training part"
    }
    ids = {document.id for document in few.part_documents("train")}
    assert {document.id for document in prepare(ROWS[::-1], max_train=5).part_documents("train")} == ids


def test_what_cannot_be_used_is_refused_in_a_sentence(prepare, tmp_path):
    with pytest.raises(DataError) as caught:
        prepare([*ROWS, *[{"prompt": "x"}] * 10])
    assert str(caught.value) == (
        f"10 of 30 rows of {tmp_path / 'train.jsonl'} cannot be used (10 missing_key), more than data.max_unusable=0.2 "
        "allows. The first: line 21: it has 'prompt' and no 'completion'. Mend the file, or raise data.max_unusable to "
        "go on without them."
    )
    with pytest.raises(DataError) as caught:
        prepare(ROWS, max_length=8)
    assert str(caught.value).endswith("Longer ones need a larger data.max_length, or data.too_long=truncate.")
    with pytest.raises(DataError) as caught:
        prepare([ROWS[0]] * 5)
    assert str(caught.value) == (
        f"{tmp_path / 'train.jsonl'} leaves no conversation for the val and the test part; left out: none. Copies and "
        "near-copies stay together: a higher data.duplicate_threshold, up to 1, sees fewer of them."
    )


def test_the_same_file_twice_is_refused(tmp_path, chat_tokenizer):
    file = write(tmp_path / "train.jsonl", ROWS)
    reading = Reading(chat_tokenizer("plain").backend_tokenizer, PlainTemplate("", "</s>"), 512)
    with pytest.raises(DataError) as caught:
        prepare_instructions(InstructionParts((file,), (file,)), reading, split=SplitSettings(), cache=tmp_path)
    assert str(caught.value) == (
        f"{tmp_path / 'train.jsonl'} is given more than once among data.train, data.val and data.test; give it once."
    )


def test_token_frequencies_are_a_baseline_with_laplace_counts(prepare):
    corpus = prepare(ROWS)
    parts = {part: corpus.sequences(part) for part in ("train", "val", "test")}
    losses = unigram_losses(corpus.tokens, parts)
    written = [corpus.tokens.sequence(own[0]) for own in parts["train"]]
    tokens = [token for each in written for token in each.ids[each.learns].tolist()]
    counts = {token: tokens.count(token) + 1 for token in tokens}
    total = len(tokens) + len(counts) + 1
    judged = corpus.tokens.sequence(parts["val"][0][0])
    expected = sum(-math.log(counts.get(token, 1) / total) for token in judged.ids[judged.learns].tolist())
    assert losses["val"][0][0] == pytest.approx(expected)
    assert losses["val"][1][0] == judged.learns.sum()


def test_near_copies_of_judged_conversations_are_named_and_left_out_of_training(tmp_path, chat_tokenizer):
    story = "Natalia sold clips to many of her friends in April and then she sold half as many clips in May to others"
    near = {"prompt": story + ".", "completion": "She sold seventy two clips altogether, yes."}
    judged = {"prompt": story + ".", "completion": "She sold seventy two clips altogether."}
    train = write(tmp_path / "train.jsonl", [*ROWS, near])
    val = write(tmp_path / "val.jsonl", [judged, pair(40)])
    reading = Reading(chat_tokenizer("plain").backend_tokenizer, PlainTemplate("", "</s>"), 512)
    corpus = prepare_instructions(
        InstructionParts((train,), (val,)), reading, split=SplitSettings(test=0.2), cache=tmp_path
    )
    assert reasons(corpus) == {"train.jsonl:21": ("in_val_file", "it is nearly val.jsonl:1")}
