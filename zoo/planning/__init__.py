"""Plan a training step on TPUs or GPUs that are not here, by compiling it for them."""
