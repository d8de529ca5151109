"""Where do media and captions come from? Made-up scenes, folders of films, spoken digits, wordings."""
