"""Helpers without knowledge of audio: files, arrays, and parallel work."""
