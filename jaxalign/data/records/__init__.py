"""Preference records: fields, columns, validation, files, sources, splits."""
