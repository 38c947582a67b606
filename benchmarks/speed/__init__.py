"""Speed and memory of whole processes and stages, and the limits of the machine."""
