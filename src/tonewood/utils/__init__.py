"""Helpers without audio in them: threads, files that appear whole, arrays on disk."""
