"""What was asked and what was found, on disk: specifications, result folders, summaries, verdicts."""
