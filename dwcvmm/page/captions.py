"""Captions: where figures come from."""

from __future__ import annotations

from pathlib import Path

from dwcvmm.results.origin import Origin
from dwcvmm.results.reportfile import GuestFacts, HostFacts

NONE = "-"


def said(host: HostFacts | None) -> str:
    """A host in one line."""
    if host is None:
        return "unknown"
    paging = ", shadow paging" if host.shadow_paging else ""
    return f"{host.cpu}, {host.cpus} CPUs, {host.kvm_module}{paging}, Linux {host.kernel}"


def of(origin: Origin) -> str:
    """Host, command and date."""
    command, date = origin.command or "unknown", origin.date or "unknown"
    cost = f", a port output and back {origin.host.exit_ns / 1000:.1f} us" if origin.host else ""
    return f"Host: {said(origin.host)}{cost}. Command: {command}. Date: {date}."


def name_of(guest: GuestFacts) -> str:
    """A guest, by its files' names without their folders."""
    initrd = f" with {Path(guest.initrd).name}" if guest.initrd else ""
    return f"{Path(guest.kernel).name}{initrd}"
