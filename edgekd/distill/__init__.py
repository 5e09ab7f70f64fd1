"""Distillation: labels, losses, the training loop, teachers and students."""
