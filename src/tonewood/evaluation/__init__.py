"""How far an output is from the sound that was wanted, where the answer is known."""
