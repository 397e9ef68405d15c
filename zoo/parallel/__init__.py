"""Where arrays live: the mesh, and the table from logical axis names to mesh axes."""
