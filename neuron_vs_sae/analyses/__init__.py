"""One folder per question asked of a basis: pure functions `f(model, basis, ...)` that return a frozen type."""
