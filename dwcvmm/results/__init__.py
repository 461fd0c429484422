"""Result files: their schemas, and how a machine that ran becomes one."""
