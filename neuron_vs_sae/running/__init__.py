"""Plans a study, runs it, resumes it, and says what it will cost."""
