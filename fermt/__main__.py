"""`python -m fermt` is the command `fermt`."""

from .cli import app

app()
