"""What a training step will take on a TPU slice, from compiling it here without one."""
