"""The neural loss: a small scorer, how it is trained, and what it hears."""
