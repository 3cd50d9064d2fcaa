"""Pictures: arrays in, PNG files and videos out. Only this package imports matplotlib."""
