"""Query: filters, search, reading rows."""
