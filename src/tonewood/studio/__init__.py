"""The studio: a page where a musician works with eyes and ears."""
