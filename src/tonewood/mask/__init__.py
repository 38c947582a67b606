"""The mask, a gain over frequency and time: components, search, rendering, certificate."""
