"""XML as a stream: where the pieces end does not matter."""

import io

import pytest

from doctune.text.formats.word import WordEvents
from doctune.text.refusal import Refused
from doctune.text.xmlstream import CHUNK_BYTES, stream_text

_START, _END = '<p xmlns="http://schemas.openxmlformats.org/wordprocessingml/2006/main"><t>', "</t></p>"


@pytest.mark.parametrize("beyond", [-1, 0, 1])
@pytest.mark.parametrize("num_chunks", [1, 2])
def test_a_part_that_ends_with_a_piece_is_read_to_its_end(num_chunks, beyond):
    text = "a" * (num_chunks * CHUNK_BYTES + beyond - len(_START + _END))
    content = (_START + text + _END).encode()
    assert "".join(stream_text(io.BytesIO(content), WordEvents())) == f"{text}\n"


@pytest.mark.parametrize("beyond", [-1, 0, 1])
def test_xml_that_stops_too_early_is_damaged_and_gives_what_came_before(beyond):
    text = "a" * (CHUNK_BYTES + beyond - len(_START))
    pieces = []
    with pytest.raises(Refused, match="XML is broken") as caught:
        pieces.extend(stream_text(io.BytesIO((_START + text).encode()), WordEvents()))
    assert caught.value.status == "damaged"
    assert "".join(pieces) == text
