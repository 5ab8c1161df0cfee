"""From dataset files to batches: sources, formats, chat template, mixture, packing."""
