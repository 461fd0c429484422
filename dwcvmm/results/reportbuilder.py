"""Makes the report of a machine that has run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import closing
from functools import cache
from pathlib import Path

from dwcvmm.core.engine import Core
from dwcvmm.core.enums import Activity, KvmExit
from dwcvmm.element.config import Strategy
from dwcvmm.element.divergence import Cause
from dwcvmm.element.engine import COPIES
from dwcvmm.element.hostprobe import HostKind, probe
from dwcvmm.errors import DwcVmmError
from dwcvmm.kvm.exits import exit_name
from dwcvmm.kvm.system import System
from dwcvmm.net.config import mac_text
from dwcvmm.pc.devices.cmos import date_text
from dwcvmm.pc.devices.virtio.net import Traffic
from dwcvmm.pc.pc import PC
from dwcvmm.pc.result import Outcome
from dwcvmm.results import reportfile
from dwcvmm.results.origin import command_line, now
from dwcvmm.results.rates import penalty
from dwcvmm.version import VERSION

NS = 1e9


@cache
def cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "unknown"


def host_facts(host: HostKind) -> reportfile.HostFacts:
    return reportfile.HostFacts(
        kvm_module=host.module,
        kernel=os.uname().release,
        cpu=cpu_model(),
        cpus=len(os.sched_getaffinity(0)),
        shadow_paging=host.shadow_paging,
        exit_ns=host.exit_ns,
    )


def this_host() -> reportfile.HostFacts:
    """Of the host, where no machine is at hand. Raises HostError without KVM."""
    with closing(System()) as system:
        return host_facts(probe(system))


def guest_facts(pc: PC) -> reportfile.GuestFacts:
    config, core = pc.config, pc.core
    return reportfile.GuestFacts(
        kernel=str(config.kernel),
        kernel_sha256=pc.kernel_sha256,
        initrd=str(config.initrd) if config.initrd else None,
        command_line=config.cmdline,
        memory_bytes=config.memory_bytes,
        status=pc.guest_status,
        time_sites=core.site_count,
        time_reads=core.site_reads,
        clock=config.engine.clock.value,
        clock_divisor=core.clock_divisor,
        rtc=date_text(config.date_ns),
    )


def slice_facts(pc: PC) -> reportfile.Slices:
    stats, replicas = pc.core.stats, pc.replicas
    stepped = pc.engine.counts.stepped_elements
    return reportfile.Slices(
        progress=str(replicas.progress.event),
        tsc="frozen" if replicas.frozen_tsc else "sites",
        ended=stats.by_end[KvmExit.INTR] - stepped,
        catch_ups=stats.catch_ups,
        debug_exits=stats.debug_exits,
        count_distance=list(stats.distance),
        skid=list(stats.lateness),
        longest_element_us=stats.longest_ns / 1000,
        longest_element_slices=stats.longest_permille / 1000,
        tick_waits=stats.tick_waits,
    )


def vote_facts(pc: PC) -> reportfile.Votes:
    voting = pc.engine.voting
    return reportfile.Votes(
        policy=pc.config.engine.policy.value,
        lost={run: voting.lost[index] for index, run in enumerate(("e1", "e2"))},
        lost_by_cpu={str(cpu): lost for cpu, lost in sorted(voting.lost_by_cpu.items())},
        suspect_cpus=voting.suspects,
    )


def scrub_facts(pc: PC) -> reportfile.Scrub:
    stats = pc.core.stats
    return reportfile.Scrub(
        bytes_per_s=pc.config.engine.scrub_bytes_per_s,
        pages=stats.scrub_pages,
        passes=stats.scrub_passes,
        seconds=pc.core.spent_ns(Activity.SCRUB) / NS,
        repairs=dict(zip(COPIES, stats.scrub_repairs, strict=True)),
        checkpoint_repairs=stats.checkpoint_repairs,
    )


def traffic(of: Traffic) -> reportfile.NetTraffic:
    return reportfile.NetTraffic(frames=of.frames, bytes=of.bytes, dropped=of.dropped)


def networks(pc: PC) -> list[reportfile.Network]:
    return [
        reportfile.Network(
            backend=net.backend.name,
            mac=mac_text(net.mac),
            link_up=net.link_up,
            received=traffic(net.received),
            sent=traffic(net.sent),
        )
        for net in pc.virtio.nets
    ]


def normalised(pc: PC) -> dict[str, int]:
    """Differences that the comparison does not count (docs/state-table.md), by kind."""
    stats = pc.core.stats
    return {
        "rflags_rf": stats.normalised_rf,
        "unusable_segment": stats.normalised_unusable,
        "accessed_bit": pc.engine.counts.accessed_bits,
    }


def by_end(counts: Mapping[int, int]) -> dict[str, int]:
    return {exit_name(reason): count for reason, count in sorted(counts.items()) if count}


def by_cause(counts: Mapping[str, int]) -> dict[str, int]:
    return {str(cause): count for cause, count in sorted(counts.items())}


def phases_s(core: Core) -> dict[str, float]:
    """Seconds by phase, so far."""
    return {activity.name.lower(): core.spent_ns(activity) / NS for activity in Activity}


def post_mortem(pc: PC) -> str:
    try:
        return pc.describe()
    except DwcVmmError as error:
        return f"none: {error}"


def build_report(
    pc: PC, wall_s: float, baseline: reportfile.Report | None = None, error: str | None = None
) -> reportfile.Report:
    """`wall_s`: time that the guest ran, without set-up. `baseline`: for the penalty. `error`: what ended the run."""
    core, counts, config = pc.core, pc.engine.counts, pc.config.engine
    stats = core.stats
    phases = phases_s(core)
    outcome = pc.outcome or Outcome.INTERRUPTED
    broken = outcome in (Outcome.CRASH, Outcome.HALT, Outcome.DIVERGENCE_STOP)
    return reportfile.Report(
        schema=reportfile.SCHEMA,
        version=VERSION,
        outcome=outcome.value,
        strategy=config.strategy.value,
        cache_flush=config.cache_flush.value,
        slice_ns=config.slice_ns,
        wall_s=wall_s,
        guest_s=core.guest_ns / NS,
        elements=reportfile.Elements(
            committed=stats.committed,
            inner_exits=stats.inner_exits,
            handovers=stats.handovers,
            by_end=by_end(dict(enumerate(stats.by_end))),
            unprotected=stats.committed if config.strategy is Strategy.OFF else 0,
        ),
        divergences=reportfile.Divergences(
            total=sum(counts.divergences.values()),
            by_cause=by_cause(counts.divergences),
            unexplained=counts.divergences[Cause.UNEXPLAINED],
        ),
        normalised=normalised(pc),
        rollbacks=stats.rollbacks,
        pages=reportfile.Pages(compared=stats.pages_compared, copied=stats.pages_copied, hot_max=stats.pages_hot_max),
        phases_s=reportfile.Phases(
            **phases,
            other=max(0.0, wall_s - sum(phases.values())),
        ),
        stepping=reportfile.Stepping(
            elements=counts.stepped_elements,
            instructions=counts.stepped_instructions,
            discarded=counts.discarded_steps,
            window_catch_ups=counts.catch_ups,
            window_catch_up_instructions=counts.catch_up_instructions,
        ),
        slices=slice_facts(pc),
        host=host_facts(pc.replicas.host),
        guest=guest_facts(pc),
        votes=vote_facts(pc),
        scrub=scrub_facts(pc),
        networks=networks(pc),
        faults=[
            reportfile.FaultFacts(
                fault=str(each.fault),
                element=each.element,
                became=each.became.value,
                steps=each.steps,
                detected_at=each.detected_at,
                latency_us=each.latency_us,
                latent=each.latent,
                repaired=each.repaired,
            )
            for each in pc.injections
        ],
        penalty_percent=penalty(wall_s, baseline.wall_s) if baseline else None,
        date=now(),
        command=command_line(),
        post_mortem=post_mortem(pc) if broken else None,
        error=error,
    )
