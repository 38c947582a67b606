"""Everything that has a path: recordings, folders of takes, model files, recipes, exports."""
