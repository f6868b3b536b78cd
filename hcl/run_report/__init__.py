"""A run as one page: how it went, what it was told, what it scores, and what it sees."""
