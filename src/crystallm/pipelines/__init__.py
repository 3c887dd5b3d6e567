"""The resumable run behind each command."""
