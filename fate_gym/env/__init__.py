"""What an agent sees: the Gymnasium environment."""
