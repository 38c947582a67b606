"""Train a model from two folders or from preferences."""
