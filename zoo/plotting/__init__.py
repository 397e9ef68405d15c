"""Pictures: attention, and what a training run did."""
