"""Strings only, no torch: normalising, sentences, words, spans and tags, with offsets into the given text."""
