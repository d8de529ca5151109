"""What do all trainings share? The run's folder, checkpoints, optimizers, averages, adversaries, several processes."""
