"""Training data: folders, manifests, cached features."""
