"""Statistics of classifiers and listening tests."""
