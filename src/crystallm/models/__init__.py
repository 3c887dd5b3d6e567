"""Trained models: load, save, convert, publish."""
