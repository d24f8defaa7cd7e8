"""What commands, stages and the Python interface can be set to: light dataclasses, said once."""
