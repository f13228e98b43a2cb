"""What `nvs list` lists: one file per basis, method, ablation, metric and task; beside them, where dictionaries come from."""
