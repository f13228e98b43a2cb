"""How well a few units of a basis tell a concept: sparse probes of every basis at one site, on the same tokens."""
