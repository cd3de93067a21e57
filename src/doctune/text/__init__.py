"""A file -> its text -> token windows and chunks. Imports no torch."""
