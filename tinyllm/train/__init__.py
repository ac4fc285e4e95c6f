"""Training of the bundled model. Nothing that serves a request imports it."""
