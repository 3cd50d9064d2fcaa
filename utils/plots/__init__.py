"""Pictures: arrays or networks in, PNG files and videos out. Only this package imports matplotlib."""
