"""What does every program need? Configs, the device, other processes, progress, memory, seeds, records."""
