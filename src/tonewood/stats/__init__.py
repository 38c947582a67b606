"""Statistics of listening tests, classifiers and bootstrap samples: plain functions on arrays."""
