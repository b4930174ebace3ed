"""Many photos: `edgedit batch` and `edgedit.batch`, on this machine or on those of a Ray cluster."""
