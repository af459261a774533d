"""What the commands of deployment do, once they know what is asked for."""
