"""The generated messages of the Open Inference Protocol, under a package name of our own."""
