"""What each subcommand of `actshift` does, in terms of the rooms of the package: a module a theme."""
