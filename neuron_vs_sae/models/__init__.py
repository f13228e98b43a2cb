"""Names to models: presets, folders, the hub."""
