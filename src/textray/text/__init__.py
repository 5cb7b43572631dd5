"""Texts: reports to zones of the picture and back, phrases, sentences, word pieces, tables."""
