"""The virtual PC around the vCPU."""
