"""Text files, their encodings, and the rows of tables and of JSON lines."""
