"""A server of GDB's remote serial protocol (GDB's manual, appendix E), so that gdb shows and steps the guest.

packets.py is the protocol's frames, of bytes alone; description.py and registers.py say what registers there are;
conversation.py answers packets with a target (target.py), which machinetarget.py makes of a machine; server.py has the
sockets.
"""
