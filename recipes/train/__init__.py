"""How is each part trained? One program a file; no program imports another, but for ``tiny``, which runs them all."""
