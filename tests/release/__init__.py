"""The release machinery, tried on throw-away repositories."""
