"""The trainer: optimizers, the step, the loop and its reports. It knows tasks only through their contract."""
