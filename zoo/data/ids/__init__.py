"""Examples as token ids, in memory, on disk or as they are asked for."""
