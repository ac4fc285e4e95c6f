"""Many ranks, one model. Knows how work is divided, and nothing of HTTP or prompts."""
