"""What a config runs: one file a stage, each with `run(config, workdir)`."""
