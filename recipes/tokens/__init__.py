"""What do token models train on? Films to shards of tokens, shards to batches."""
