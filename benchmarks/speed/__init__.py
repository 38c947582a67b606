"""How fast, and in how much memory: whole processes, stages, and the machine's limits."""
