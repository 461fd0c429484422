"""Patch an unpacked bochs 3.0 source tree: python3 patch.py TREE

Adds the PMU of pmu.cc (here are only its hooks) and a settable seed, and mends three faults: host interrupts while a
guest runs that was entered with IF = 0, RF of an EPT violation in the delivery of an event, and MXCSR where SSE's
initial state is restored. Every replacement
is checked: a tree of another version stops here with the text that was not found.
SPDX-License-Identifier: LGPL-2.0-or-later, as bochs itself.
"""

import re
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).parent
tree = Path(sys.argv[1])


def edit(name: str, *changes: tuple[str, str], times: int = 1) -> None:
    """Apply (old, new) pairs to one file; each old text must occur exactly so many times."""
    path = tree / name
    text = path.read_text(encoding="latin-1")
    for old, new in changes:
        if text.count(old) != times:
            sys.exit(f"{name}: expected {times} times, found {text.count(old)}: {old!r}")
        text = text.replace(old, new)
    path.write_text(text, encoding="latin-1")


edit(
    "cpu/cpu.h",
    (
        '#include "crregs.h"\n',
        """enum { PMU_INTERRUPT, PMU_FAULT, PMU_ENTRY, PMU_CAUSES };
typedef struct {
  Bit64u global_ctrl, global_status, fixed_ctrl, evtsel[4];
  Bit64u ctr[8];                      // 0-2 fixed, 4-7 general purpose
  Bit64u last[5];                     // what was accounted, by event
  Bit64u nonretired;                  // steps of icount that retire nothing: faults, VM exits, REP iterations
  Bit64u overcount;                   // retired instructions that never were
  Bit64u conditional, unconditional;  // near branches
  bool user, active;
  int timer, late_timer;
} bx_pmu_t;
extern bool bx_pmu_present(void);

#include "crregs.h"
""",
    ),
    (
        "  Bit64u icount;\n  Bit64u icount_last_sync;\n",
        "  Bit64u icount;\n  Bit64u icount_last_sync;\n  bx_pmu_t pmu;\n",
    ),
    (
        "  BX_SMF bool handle_unknown_rdmsr(",
        """  BX_SMF void pmu_init(void);
  static void pmu_timer_handler(void *);
  static void pmu_late_handler(void *);
  BX_SMF void pmu_sync(unsigned inflight);
  BX_SMF void pmu_deviate(unsigned cause);
  BX_SMF void pmu_set_global_ctrl(Bit64u val);
  BX_SMF Bit64u pmu_read_ctr(unsigned i);
  BX_SMF bool pmu_rdmsr(Bit32u idx, Bit64u *val);
  BX_SMF bool pmu_wrmsr(Bit32u idx, Bit64u val);
  BX_SMF bool handle_unknown_rdmsr(""",
    ),
    (
        "     (BX_CPU_THIS_PTR sregs[BX_SEG_REG_CS].selector.rpl == 3);\n\n#if BX_SUPPORT_UINTR\n  uintr",
        "     (BX_CPU_THIS_PTR sregs[BX_SEG_REG_CS].selector.rpl == 3);\n\n"
        "  if (BX_CPU_THIS_PTR pmu.active && BX_CPU_THIS_PTR pmu.user != BX_CPU_THIS_PTR user_pl) pmu_sync(0);\n\n"
        "#if BX_SUPPORT_UINTR\n  uintr",
    ),
)

# instructions that do not retire: exceptions and VM exits, and the iterations inside a REP instruction
edit(
    "cpu/cpu.cc",
    (
        "    // can get here only from exception function or VMEXIT\n    BX_CPU_THIS_PTR icount++;",
        "    // can get here only from exception function or VMEXIT\n    BX_CPU_THIS_PTR icount++;\n"
        "    BX_CPU_THIS_PTR pmu.nonretired++;",
    ),
    times=2,
)
path = tree / "cpu/cpu.cc"
text = path.read_text(encoding="latin-1")
start = text.index("::repeat(bxInstruction_c")
head, tail = text[:start], text[start:]
tail, loops = re.subn(
    r"( +)BX_CPU_THIS_PTR icount\+\+;\n\n( +BX_SYNC_TIME)",
    r"\1BX_CPU_THIS_PTR icount++;\n\1BX_CPU_THIS_PTR pmu.nonretired++;\n\n\2",
    tail,
)
tail, exits = re.subn(
    r"(  RIP = BX_CPU_THIS_PTR prev_rip; // repeat loop not done, restore RIP)",
    r"\1\n  BX_CPU_THIS_PTR pmu.nonretired++;",
    tail,
)
if (loops, exits) != (9, 2):
    sys.exit(f"cpu/cpu.cc: expected 9 REP loops and 2 exits, found {loops} and {exits}")
path.write_text(head + tail, encoding="latin-1")

branches = [
    ("CNEAR_BRANCH_TAKEN(cpu_id, branch_eip, new_eip)", "conditional"),
    ("CNEAR_BRANCH_NOT_TAKEN(cpu_id, branch_eip)", "conditional"),
    ("UCNEAR_BRANCH(cpu_id, what, branch_eip, new_eip)", "unconditional"),
]
edit(
    "instrument/stubs/instrument.h",
    *(
        (f"#define BX_INSTR_{macro}\n", f"#define BX_INSTR_{macro} (BX_CPU_THIS_PTR pmu.{name}++)\n")
        for macro, name in branches
    ),
)

# a LOOP that falls through told so only to instrumentation
fall_through = "    else {\n      BX_INSTR_CNEAR_BRANCH_NOT_TAKEN(BX_CPU_ID, PREV_RIP);\n    }\n"
for bits in (16, 32, 64):
    edit(
        f"cpu/ctrl_xfer{bits}.cc",
        (
            f"#if BX_INSTRUMENTATION\n{fall_through}#endif\n",
            fall_through,
        ),
        times=6,
    )

edit(
    "cpu/init.cc",
    ("void BX_CPU_C::initialize(void)\n{\n", "void BX_CPU_C::initialize(void)\n{\n  pmu_init();\n"),
    (
        "  srand(time(NULL)); // initialize",
        '  srand(getenv("BOCHS_SEED") ? atoi(getenv("BOCHS_SEED")) : time(NULL)); // initialize',
    ),
)

edit(
    "cpu/apic.h",
    (
        "  void set_lvt_entry(unsigned apic_reg, Bit32u val);",
        "  void set_lvt_entry(unsigned apic_reg, Bit32u val);\npublic:\n  void deliver_pmi(void);",
    ),
)
edit(
    "cpu/apic.cc",
    (
        "void bx_local_apic_c::periodic_smf(",
        """void bx_local_apic_c::deliver_pmi(void)
{
  Bit32u v = lvt[APIC_LVT_PERFMON];
  if (v & 0x10000) return;
  lvt[APIC_LVT_PERFMON] |= 0x10000;   // masked on delivery
  if (((v >> 8) & 7) == APIC_DM_NMI) cpu->deliver_NMI();
  else trigger_irq(v & 0xff, APIC_EDGE_TRIGGERED);
}

void bx_local_apic_c::periodic_smf(""",
    ),
)

for way, call in (("rdmsr", "pmu_rdmsr(index, msr)"), ("wrmsr", "pmu_wrmsr(index, val_64)")):
    edit(
        "cpu/msr.cc",
        (
            f"  if (index < BX_MSR_MAX_INDEX) {{\n    if (! msr_desc[index]) return handle_unknown_{way}(",
            f"  if ({call}) return true;\n\n"
            f"  if (index < BX_MSR_MAX_INDEX) {{\n    if (! msr_desc[index]) return handle_unknown_{way}(",
        ),
    )

edit(
    "cpu/vmx.cc",
    (
        "  BX_CPU_THIS_PTR in_vmx_guest = false;\n\n  // entering VMX root",
        "  BX_CPU_THIS_PTR in_vmx_guest = false;\n  if (vm->vmexit_ctrls1.LOAD_PERF_GLOBAL_CTRL_MSR())\n"
        "    pmu_set_global_ctrl(VMread64(VMCS_64BIT_HOST_IA32_PERF_GLOBAL_CTRL));\n\n  // entering VMX root",
    ),
    # RF of an EPT violation while an event is delivered (SDM 3C 28.3.3): in_event is cleared before this point
    (
        "      if (! BX_CPU_THIS_PTR in_event)\n        eflags |= EFlagsRFMask;",
        "      if (! (VMread32(VMCS_32BIT_IDT_VECTORING_INFO) & 0x80000000))\n        eflags |= EFlagsRFMask;",
    ),
    # With "external-interrupt exiting" IF does not block host interrupts (SDM 3C 25.2): the mask was computed
    # before this flag was set, and a guest entered with IF = 0 kept them out for as long as it did not exit.
    (
        "  BX_CPU_THIS_PTR in_vmx_guest = true;\n\n  unmask",
        "  BX_CPU_THIS_PTR in_vmx_guest = true;\n  handleInterruptMaskChange();\n"
        "  if (vm->vmentry_ctrls.LOAD_PERF_GLOBAL_CTRL_MSR()) {\n"
        "    pmu_set_global_ctrl(VMread64(VMCS_64BIT_GUEST_IA32_PERF_GLOBAL_CTRL));\n"
        "    pmu_deviate(PMU_ENTRY);\n"
        "    // valid, of type external interrupt: KVM injects exceptions as well\n"
        "    if ((vm->vmentry_interr_info & 0x80000700) == 0x80000000) pmu_deviate(PMU_INTERRUPT);\n  }\n\n"
        "  unmask",
    ),
    # The VMRESUME belongs to neither side. Only here is it sure that it retires: the delivery of an event may
    # fault or exit before.
    (
        "    VMX_TPR_Virtualization();\n  }\n#endif\n\n#endif // BX_SUPPORT_VMX",
        "    VMX_TPR_Virtualization();\n  }\n#endif\n\n"
        "  if (vm->vmentry_ctrls.LOAD_PERF_GLOBAL_CTRL_MSR()) BX_CPU_THIS_PTR pmu.nonretired++;\n\n"
        "#endif // BX_SUPPORT_VMX",
    ),
)
edit(
    "cpu/event.cc",
    (
        "void BX_CPU_C::HandleExtInterrupt(void)\n{\n",
        "void BX_CPU_C::HandleExtInterrupt(void)\n{\n  if (BX_CPU_THIS_PTR in_vmx_guest) pmu_deviate(PMU_INTERRUPT);\n",
    ),
)
edit(
    "cpu/exception.cc",
    (
        "void BX_CPU_C::exception(unsigned vector, Bit16u error_code)\n{\n",
        "void BX_CPU_C::exception(unsigned vector, Bit16u error_code)\n{\n"
        "  if (vector == BX_PF_EXCEPTION && BX_CPU_THIS_PTR in_vmx_guest) pmu_deviate(PMU_FAULT);\n",
    ),
)

path = tree / "cpu/proc_ctrl.cc"
text = path.read_text(encoding="latin-1")
start = text.index("  if (BX_CPUID_SUPPORT_ISA_EXTENSION(BX_ISA_SSE2)) { // Pentium 4 processor")
end = text.index("\n", text.index('  BX_ERROR(("RDPMC: Performance Counters Support not implemented yet"));')) + 1
path.write_text(
    text[:start]
    + """  Bit32u ctr = ECX & 0xbfffffff;
  if (!bx_pmu_present() || ctr >= ((ECX & (1<<30)) ? 3u : 4u)) exception(BX_GP_EXCEPTION, 0);
  Bit64u v = pmu_read_ctr((ECX & (1<<30)) ? ctr : ctr + 4);
  RAX = GET32L(v); RDX = GET32H(v);
"""
    + text[end:],
    encoding="latin-1",
)

# MXCSR is a part of SSE's state in the compacted form (SDM 1 13.8.2), and was left as it was: a guest of KVM that had
# not used SSE got the value of the VMM
edit(
    "cpu/xsave.cc",
    (
        "    else\n      xrstor_init_sse_state();\n  }\n\n  if (compaction) {",
        "    else {\n      xrstor_init_sse_state();\n      if (compaction) BX_MXCSR_REGISTER = MXCSR_RESET;\n    }\n"
        "  }\n\n  if (compaction) {",
    ),
)

edit("cpu/Makefile.in", ("\tmsr.o \\\n", "\tmsr.o \\\n\tpmu.o \\\n"))
edit(
    "cpu/cpudb/intel/corei7_skylake-x.cc",
    (
        "leaf->eax = 0x07300404;\n  leaf->ebx = 0x00000000;",
        "leaf->eax = bx_pmu_present() ? 0x07300402 : 0;\n  leaf->ebx = bx_pmu_present() ? 0x00000058 : 0;",
    ),
)
shutil.copy(HERE / "pmu.cc", tree / "cpu")
