"""What a trajectory kept, as files and pictures."""
