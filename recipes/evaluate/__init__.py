"""How good is it? Subjects, material, metrics and what they come to; the model's card reads nothing else."""
