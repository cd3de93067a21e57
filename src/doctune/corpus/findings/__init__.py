"""Findings about labelled texts, by what they are about; pure functions that read and write no files."""
