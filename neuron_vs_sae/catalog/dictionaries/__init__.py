"""SAEs and transcoders: where they come from, what they are as dictionaries, and whether they fit."""
