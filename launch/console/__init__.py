"""Tables and error handling of the commands."""
