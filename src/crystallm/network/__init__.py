"""The transformer: tensors alone."""
