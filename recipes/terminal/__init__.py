"""What do all commands share? Options, checks before the work, reading and writing of media, what is printed."""
