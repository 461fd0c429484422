"""The virtual PC around the vCPU: RAM, buses, boot protocols, ACPI, devices."""
