"""From config to the objects that stages work with; below it nobody knows a config."""
