"""A small policy that learns from recorded episodes, and from rewards after that."""
