"""mlproject keeps a Delta table of predictions true to an image folder and a model registry."""
