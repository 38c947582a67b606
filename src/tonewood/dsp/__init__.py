"""Signal processing: spectra, features, loudness, equalizers, measurements of recordings."""
