"""Which chunks of a long document counted, beside its label in the report."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from doctune.errors import ArtifactError
from doctune.reports.run import write_report


@pytest.fixture
def run(make_run):
    """A run whose documents have four chunks each; the third of the wrong one counts most."""
    folder = make_run()
    rows = [
        {
            "id": f"test-{row}",
            "chunk": chunk,
            "weight": weight,
            "start": 0,
            "end": 9,
            "text": f"text {row}.{chunk} <script>",
        }
        for row in range(120)
        for chunk, weight in enumerate((0.1, 0.2, 0.6, 0.1) if row == 9 else (0.4, 0.3, 0.2, 0.1))
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "predictions/test_attention.parquet")
    return folder


def test_mistakes_and_right_answers_have_the_chunks_that_counted_most(run):
    write_report(run)
    report = json.loads((run / "report/report.json").read_text(encoding="utf-8"))
    mistake = report["worst_mistakes"][0]
    assert mistake["path"] == "/files/9.txt"
    assert mistake["num_chunks"] == 4
    assert [chunk["number"] for chunk in mistake["chunks"]] == [2, 1, 0]
    assert mistake["chunks"][0] == {"number": 2, "weight": 0.6, "text": "text 9.2 <script>"}
    assert [right["path"] for right in report["surest_right"]] == [f"/files/{row}.txt" for row in range(5)]
    assert [chunk["weight"] for chunk in report["surest_right"][0]["chunks"]] == [0.4, 0.3, 0.2]


def test_the_page_shows_their_text_as_text(run):
    write_report(run)
    page = (run / "report/index.html").read_text(encoding="utf-8")
    assert "chunk 3 of 4" in page
    assert "text 9.2 &lt;script&gt;" in page
    assert 'id="why"' in page


def test_a_run_that_reads_no_chunks_says_nothing_of_them(make_run):
    folder = make_run()
    write_report(folder)
    report = json.loads((folder / "report/report.json").read_text(encoding="utf-8"))
    assert "surest_right" not in report
    assert "chunks" not in report["worst_mistakes"][0]
    assert 'id="why"' not in (folder / "report/index.html").read_text(encoding="utf-8")


def test_a_damaged_file_is_named(run):
    path = run / "predictions/test_attention.parquet"
    path.write_bytes(b"nothing")
    with pytest.raises(ArtifactError, match=r"test_attention\.parquet"):
        write_report(run)
