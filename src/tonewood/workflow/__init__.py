"""The product as functions: every front end goes through here, so that none can disagree."""
