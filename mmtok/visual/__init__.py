"""Visual tokenizers, one family a file."""
