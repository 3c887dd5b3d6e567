"""How well a model follows the values of properties that it is given."""
