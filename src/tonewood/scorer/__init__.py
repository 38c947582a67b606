"""The neural loss: network, training, guide, saliency."""
