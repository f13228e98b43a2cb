"""How sparse, faithful and complete the circuits of a basis are, and how stable."""
