"""Python models of the repository, copied into it as they are; see `serving.repository`."""
