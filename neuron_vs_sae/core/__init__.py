"""What things are: pairs, nodes, bases, metrics, curves, the choices of a study by name, errors, files. Knows no model and no study."""
