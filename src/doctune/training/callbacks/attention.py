"""How much each chunk of a judged document counted, as `predictions/<part>_attention.parquet`.

Shapes: B documents of a batch, C chunks of all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from doctune.corpus.chunk_tokens import DocumentChunks
from doctune.corpus.division import LabelledDocument
from doctune.files import written_whole
from doctune.training.callbacks.judged import JudgedPartWriter

EXCERPT_CHARS = 300
_DOCUMENTS_PER_GROUP = 500
_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("chunk", pa.int32()),
        ("weight", pa.float32()),
        ("start", pa.int64()),
        ("end", pa.int64()),
        ("text", pa.string()),
    ]
)


class AttentionWriter(JudgedPartWriter[list[float]]):
    """Collects the attention of `trainer.validate` and `trainer.test` and writes it in document order.

    A row per chunk: the document's id, which of its chunks that were read it is (from 0), its weight (of sum 1 per
    document), the characters that it stands for, and the first of them.

    Args:
        folder: where the files go.
        documents: part -> its documents.
        chunks: part -> their chunks.
        texts: gives the texts of some documents.
    """

    def __init__(
        self,
        folder: Path,
        documents: Mapping[str, Sequence[LabelledDocument]],
        chunks: Mapping[str, DocumentChunks],
        texts: Callable[[Sequence[LabelledDocument]], Sequence[str]],
    ) -> None:
        super().__init__()
        self._folder = folder
        self._documents = documents
        self._chunks = chunks
        self._texts = texts

    def collect(self, outputs: Any, batch: Any) -> None:
        """Keep the weights of the chunks."""
        counts = batch["chunk_counts"].tolist()
        weights = outputs["attention"].float().cpu().split(counts)
        for index, row in zip(batch["index"].tolist(), weights, strict=True):
            self.kept[index] = row.tolist()

    def write(self, part: str) -> None:
        """Write the chunks in the order of the documents."""
        documents = self._documents[part]
        judged = enumerate(zip(documents, self._texts(documents), strict=True))
        with (
            written_whole(self._folder / f"{part}_attention.parquet") as temporary,
            pq.ParquetWriter(temporary, _SCHEMA) as writer,
        ):
            for _ in range(0, len(documents), _DOCUMENTS_PER_GROUP):
                group = islice(judged, _DOCUMENTS_PER_GROUP)
                rows = [row for index, (document, text) in group for row in self._rows(part, index, document.id, text)]
                writer.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA))

    def _rows(self, part: str, index: int, name: str, text: str) -> list[dict[str, Any]]:
        """One row per chunk of a document."""
        chunks = self._chunks[part]
        spans = [chunks.tokens.spans[row].tolist() for row in chunks[index]]
        return [
            {
                "id": name,
                "chunk": number,
                "weight": weight,
                "start": start,
                "end": end,
                "text": text[start : min(end, start + EXCERPT_CHARS)],
            }
            for number, ((start, end), weight) in enumerate(zip(spans, self.kept[index], strict=True))
        ]
