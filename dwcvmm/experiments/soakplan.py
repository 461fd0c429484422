"""The pieces of scripts/soak. A piece is one command on one host."""

from __future__ import annotations

import msgspec

LEAST_ELEMENTS = 100


class Host(msgspec.Struct, frozen=True):
    """Where pieces run. `share`: of the elements of small guests; `guests`: their shares of those; `boots`: of Linux,
    each of at least `boot_elements` (one commits more, and the number varies: docs/measurements.md).

    Shares follow the host's speed: since accesses to devices in C end no element, local KVM commits a thousand of them
    a second, amd and bochs some tens: small guests end after a dozen, and a machine has to be made for each run.
    """

    name: str
    kind: str  # a testbed's kind, or local
    share: int
    strategies: tuple[str, ...]
    guests: dict[str, int]
    boots: tuple[str, ...] = ("sequential",)  # strategies
    pmu: str = ""
    tsc: str = "auto"  # how the guest's TSC is kept the same (--tsc)
    boot_elements: int = 1500


# shares are small where elements are slow: single steps (entries, rdtsc), slices in bochs of 0.1 s (compute, spin)
NATURAL_ENDS = {"ports": 8, "mmio": 6, "fpu": 4, "paging": 4, "smc": 4, "rdtsc": 1, "entries": 1}
SLICES = {"compute": 3, "spin": 1, "fpu": 6, "paging": 6, "interrupts": 12, "entries": 2}
BOTH = ("sequential", "parallel")
OVERCOUNTS = "interrupt=1,fault=1,entry=1"
HOSTS = (
    Host("local", "local", 930, BOTH, {"ports": 4, "mmio": 4, "smc": 2, "fpu": 2, "paging": 2, "ring3": 1}),
    Host("amd", "amd", 20, BOTH, NATURAL_ENDS, BOTH),
    Host("intel", "intel", 10, BOTH, NATURAL_ENDS),
    Host("pmu-exact", "intel-pmu", 8, ("sequential",), SLICES, (), "exact"),
    Host("pmu-skid", "intel-pmu", 8, ("sequential",), SLICES, pmu="skid=random:128"),
    Host("pmu-overcount", "intel-pmu", 8, ("sequential",), SLICES, (), OVERCOUNTS),
    # a counter, but no frozen TSC, as on client CPUs
    Host("pmu-sites", "intel-pmu", 8, ("sequential",), SLICES, pmu="exact", tsc="sites"),
    Host("pmu-noise-sites", "intel-pmu", 8, ("sequential",), SLICES, pmu=f"skid=random:128,{OVERCOUNTS}", tsc="sites"),
)


class Piece(msgspec.Struct, frozen=True):
    host: str
    guest: str  # linux: a boot
    strategy: str
    elements: int  # the least number that is expected
    number: int

    @property
    def name(self) -> str:
        return f"{self.host}.{self.guest}.{self.strategy}.{self.elements}.{self.number}"

    @classmethod
    def from_name(cls, name: str) -> Piece:
        host, guest, strategy, elements, number = name.split(".")
        return cls(host, guest, strategy, int(elements), int(number))


def choose_hosts(only: str | None, local: str) -> list[Host]:
    """The hosts named by `only` (a kind, a name, or all); the local one only if it can run guests."""
    chosen = [host for host in HOSTS if only in (None, host.kind, host.name)]
    return [host for host in chosen if host.kind != "local" or local != "none"]


def plan(elements: int, hosts: list[Host], local: str = "none") -> list[Piece]:
    """Pieces that commit at least `elements`: a boot of Linux on each host under each strategy of its `boots`, as far
    as they are wanted, and the rest by small guests.
    """
    pieces: list[Piece] = []
    rest = elements
    for host in hosts:
        for number, how in enumerate(host.boots if host.kind != "local" or local == "linux" else ()):
            if rest >= host.boot_elements:
                pieces.append(Piece(host.name, "linux", how, host.boot_elements, number))
                rest -= host.boot_elements
    shares = sum(host.share for host in hosts)
    for host in hosts:
        parts = shares * sum(host.guests.values())
        for i, (guest, part) in enumerate(host.guests.items()):
            wanted = -(-rest * host.share * part // parts)
            how = host.strategies[i % len(host.strategies)]
            pieces.append(Piece(host.name, guest, how, max(wanted, LEAST_ELEMENTS), 0))
    return pieces
