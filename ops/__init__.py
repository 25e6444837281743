"""Pure layers and functions: no files, no printing, no device calls."""
