"""What commands found out, for people and for programs. Nothing here is measured or printed."""
