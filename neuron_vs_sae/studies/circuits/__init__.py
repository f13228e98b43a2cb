"""The study of circuits as an analysis: its cells, what they compute, and how they are put together."""
