"""What can be typed? One file a command: ``SUMMARY``, ``EXAMPLES``, ``add_arguments(parser)`` and ``run(args) -> int``.

Modules here import nothing heavy at the top, so that help and mistakes are answered at once.
"""
