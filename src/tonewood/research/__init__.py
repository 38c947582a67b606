"""Commands for students of the method: reproduce the paper, search for the smallest scorer."""
