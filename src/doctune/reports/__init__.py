"""Run folders -> summaries, tables, pictures."""
