"""Pictures, charts and HTML reports."""
