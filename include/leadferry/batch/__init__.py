"""The batch file: what it may say (`model`), how it is read (`load`), and what is told about it."""
