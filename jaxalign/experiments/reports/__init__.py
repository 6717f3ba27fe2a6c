"""Reports: one module per page, and the numbers it shows."""
