"""Requests in, tokens out. Knows nothing of HTTP; drives whatever executor it is handed."""
