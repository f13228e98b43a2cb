"""The study of circuits as an analysis: its cells, what they compute, and what becomes of them."""
