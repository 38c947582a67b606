"""Short-time spectra, frequency bands and loudness: arrays in, arrays out."""
