"""Code that the API, the workers and client programs all import; no Flask, no TensorFlow."""
