"""Read and write audio files: formats, headers, tags, remote locations."""
