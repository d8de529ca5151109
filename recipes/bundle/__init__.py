"""What is a whole model, and what does a name mean? A folder of parts with a config, and how names become parts."""
