"""Result files: their schemas, and how they are made from machines that ran."""
