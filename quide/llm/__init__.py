"""Language models: their files, the methods that quantize them, and the questions they are asked."""
