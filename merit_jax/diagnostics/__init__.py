"""What a checkpoint, a mixture and a merge look like from inside the loss: pure functions of losses, parameters and batches."""
