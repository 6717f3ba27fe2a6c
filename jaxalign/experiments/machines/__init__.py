"""What is said about devices and compiled steps."""
