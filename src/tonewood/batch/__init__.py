"""Process many files: here, in processes, or on a Dask cluster."""
