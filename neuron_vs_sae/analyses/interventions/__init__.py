"""Units set to other values: what that does, against what it should not do, and against controls."""
