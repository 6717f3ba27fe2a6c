"""What is said about data and whoever labelled it, in numbers and on pages."""
