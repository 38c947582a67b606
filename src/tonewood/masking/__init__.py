"""The adaptive EQ: where a mask starts, what pulls it, how it is found, what it did."""
