"""Programs on their way in: checked, traced, imported into Relax."""
