"""The doors between words and zones; every door names whose left and right the words mean."""

from __future__ import annotations

from textray.text.grammar import bank_sentences, parse_caption, sentence

__all__ = ["bank_sentences", "parse_caption", "sentence"]
