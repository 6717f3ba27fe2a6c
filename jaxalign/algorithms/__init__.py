"""Training algorithms: jitted updates that see no dataset, file or clock."""
