"""The `doctune` command: one file per subcommand."""
