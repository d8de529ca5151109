"""Text: the frozen T5 encoder and the cache of its vectors."""
