"""What every training shares: the loop, the step, checkpoints, metrics, devices."""
