"""The page of graphs: neurons and a dictionary side by side on one prompt, drawn by the page itself, without a network."""
