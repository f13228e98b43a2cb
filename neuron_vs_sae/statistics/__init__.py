"""Arrays in, numbers out: resampling, intervals, tests, corrections, random effects. Knows no model and no study."""
