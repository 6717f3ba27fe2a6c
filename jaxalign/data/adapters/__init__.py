"""Dataset adapters: public preference data sets as records."""
