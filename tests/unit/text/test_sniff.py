from doctune.text.extract import extract

COMMENTS = b"<!-- a comment -->\n<!-- another -->\n"


def test_a_file_of_many_comments_is_sniffed_at_once():
    content = b'<?xml version="1.0"?>\n' + COMMENTS * 2000 + b"<xsl:stylesheet/>"
    assert extract(content, name="a.xsl").format == "xml"


def test_comments_before_a_page_do_not_hide_that_it_is_one():
    content = b'<?xml version="1.0"?>\n' + COMMENTS * 20 + b"<html><body>text</body></html>"
    assert (extract(content).format, extract(content).text) == ("html", "text")
