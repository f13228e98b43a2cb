"""How much of an activation, and of the model's predictions, a few units per token keep."""
