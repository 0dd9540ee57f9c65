"""The command line: one file a command; errors become one line and an exit code here."""
