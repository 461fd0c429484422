"""The control socket of a machine that runs: QMP, the protocol of QEMU's monitor (QEMU, docs/interop/qmp-spec.rst).

messages.py and qmp.py are the protocol, of bytes and answers alone; commands.py says what can be asked;
machinecontrol.py does it with a machine; server.py and client.py have the sockets.
"""
