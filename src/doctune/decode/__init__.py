"""Logits -> labels, spans, answers."""
