"""The pieces of scripts/soak. A piece is one command on one host."""

from __future__ import annotations

import msgspec

BOOT_ELEMENTS = 45_000  # at least; a boot commits more, and the number varies (docs/measurements.md)
LEAST_ELEMENTS = 100


class Host(msgspec.Struct, frozen=True):
    """Where pieces run. `share`: of the elements of small guests; `guests`: their shares of those; `boots`: of Linux.

    Shares follow the host's speed: bochs commits a hundred elements a second, the others several hundred. A
    boot there takes eight minutes, or twice that with slices, so only one setting of the PMU has a boot.
    """

    name: str
    kind: str  # a testbed's kind, or local
    share: int
    strategies: tuple[str, ...]
    guests: dict[str, int]
    boots: tuple[str, ...] = ("sequential",)  # strategies
    pmu: str = ""
    tsc: str = "auto"  # how the guest's TSC is kept the same (--tsc)


# shares are small where elements are slow: single steps (entries, rdtsc), slices in bochs of 0.1 s (compute, spin)
NATURAL_ENDS = {"ports": 8, "mmio": 6, "fpu": 4, "paging": 4, "smc": 4, "rdtsc": 1, "entries": 1}
SLICES = {"compute": 3, "spin": 1, "fpu": 6, "paging": 6, "interrupts": 12, "entries": 2}
BOTH = ("sequential", "parallel")
OVERCOUNTS = "interrupt=1,fault=1,entry=1"
HOSTS = (
    Host("local", "local", 20, ("parallel",), {"ports": 4, "mmio": 4, "smc": 2, "fpu": 2, "paging": 2, "ring3": 1}),
    Host("amd", "amd", 70, BOTH, NATURAL_ENDS, BOTH),
    Host("intel", "intel", 5, BOTH, NATURAL_ENDS),
    Host("pmu-exact", "intel-pmu", 1, ("sequential",), SLICES, (), "exact"),
    Host("pmu-skid", "intel-pmu", 1, ("sequential",), SLICES, pmu="skid=random:128"),
    Host("pmu-overcount", "intel-pmu", 1, ("sequential",), SLICES, (), OVERCOUNTS),
    # a counter, but no frozen TSC, as on client CPUs
    Host("pmu-sites", "intel-pmu", 1, ("sequential",), SLICES, pmu="exact", tsc="sites"),
    Host("pmu-noise-sites", "intel-pmu", 1, ("sequential",), SLICES, pmu=f"skid=random:128,{OVERCOUNTS}", tsc="sites"),
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
    """Pieces that commit at least `elements`: up to half by whole boots of Linux, the rest by small guests.

    Each host boots once under each strategy of its `boots`. Further boots are on the host with the largest share.
    """
    able = [host for host in hosts if host.boots and (host.kind != "local" or local == "linux")]
    places = [(host.name, how) for host in able for how in host.boots]
    boots = elements // 2 // BOOT_ELEMENTS if places else 0
    if boots > len(places):
        fastest = max(able, key=lambda host: host.share)
        places += [(fastest.name, how) for how in fastest.boots] * boots
    pieces = [Piece(host_name, "linux", how, BOOT_ELEMENTS, i) for i, (host_name, how) in enumerate(places[:boots])]
    rest = elements - boots * BOOT_ELEMENTS
    shares = sum(host.share for host in hosts)
    for host in hosts:
        parts = shares * sum(host.guests.values())
        for i, (guest, part) in enumerate(host.guests.items()):
            wanted = -(-rest * host.share * part // parts)
            how = host.strategies[i % len(host.strategies)]
            pieces.append(Piece(host.name, guest, how, max(wanted, LEAST_ELEMENTS), 0))
    return pieces
