// An architectural PMU (version 2, SDM vol. 3B 20.2.2) for bochs: 3 fixed and 4 general counters of 48 bits,
// instructions, cycles, branches; ring filter; overflow interrupt through LVTPC; IA32_PERF_GLOBAL_CTRL switched
// at VM entry and exit; RDPMC. Settings from the environment, because an exact PMU would hide what real ones do:
//   BOCHS_PMU=SETTING,...   without it there is no PMU; BOCHS_PMU=exact has no deviation
//     skid=N                the overflow interrupt comes N instructions late
//     skid=random:N         0 to N, another each time
//     interrupt=N           instructions counted too many an interrupt (no NMI) that hits or is injected into a guest
//     fault=N               ... a page fault
//     entry=N               ... a VM entry; all three take random:N as well
//     seed=N                of what is random; 0 by default
// SPDX-License-Identifier: LGPL-2.0-or-later, as bochs itself.
#define NEED_CPU_REG_SHORTCUTS 1
#include "bochs.h"
#include "cpu.h"
#include "apic.h"
#include "pc_system.h"
#define LOG_THIS BX_CPU_THIS_PTR
#define PMU (BX_CPU_THIS_PTR pmu)

static const Bit64u PMU_MASK = (BX_CONST64(1) << 48) - 1;
static const Bit64u GLOBAL_CTRL_BITS = BX_CONST64(0x70000000f);

enum { EV_NONE, EV_INSTRUCTIONS, EV_CYCLES, EV_BRANCHES, EV_CONDITIONAL, EVENTS };

struct deviation {
  bool random;
  unsigned amount;
};

static struct {
  bool present;
  deviation skid, overcount[PMU_CAUSES];
  Bit64u seed;
} settings;

static bool parse(const char *text, const char *name, deviation *value)
{
  size_t length = strlen(name);
  if (strncmp(text, name, length) || text[length] != '=') return false;
  text += length + 1;
  value->random = !strncmp(text, "random:", 7);
  value->amount = (unsigned) strtoul(value->random ? text + 7 : text, NULL, 0);
  return true;
}

static bool parse_seed(const char *text)
{
  if (strncmp(text, "seed=", 5)) return false;
  settings.seed ^= strtoul(text + 5, NULL, 0) * BX_CONST64(0xd1342543de82ef95);
  return true;
}

static void read_settings(void)
{
  static const char *names[PMU_CAUSES] = { "interrupt", "fault", "entry" };
  const char *text = getenv("BOCHS_PMU");
  settings.present = text != NULL;
  settings.seed = BX_CONST64(0x9e3779b97f4a7c15);
  while (text && *text) {
    bool known = !strncmp(text, "exact", 5) || parse_seed(text) || parse(text, "skid", &settings.skid);
    for (unsigned i=0; i<PMU_CAUSES; i++) known |= parse(text, names[i], &settings.overcount[i]);
    if (!known) { fprintf(stderr, "BOCHS_PMU: unknown setting %s\n", text); exit(1); }
    text = strchr(text, ',');
    if (text) text++;
  }
}

bool bx_pmu_present(void)
{
  return settings.present;
}

static unsigned draw(const deviation &d)
{
  if (!d.random) return d.amount;
  settings.seed ^= settings.seed << 13; settings.seed ^= settings.seed >> 7; settings.seed ^= settings.seed << 17;
  return (unsigned) (settings.seed % (d.amount + 1));
}

// Counter i: 0-2 fixed, 4-7 general. Which event it counts in this ring now; *pmi: whether it interrupts.
static unsigned event_of(const bx_pmu_t &p, unsigned i, bool user, bool *pmi)
{
  if (i < 4) {
    if (i == 3 || !(p.global_ctrl & (BX_CONST64(1) << (32+i)))) return EV_NONE;
    unsigned c = (p.fixed_ctrl >> (4*i)) & 0xf;
    *pmi = (c & 8) != 0;
    if (!(c & (user ? 2 : 1))) return EV_NONE;
    return i == 0 ? EV_INSTRUCTIONS : EV_CYCLES;
  }
  unsigned n = i-4;
  if (!(p.global_ctrl & (BX_CONST64(1) << n))) return EV_NONE;
  Bit32u s = (Bit32u) p.evtsel[n];
  if (!(s & (1<<22))) return EV_NONE;
  *pmi = (s & (1<<20)) != 0;
  if (!(s & (user ? (1<<16) : (1<<17)))) return EV_NONE;
  switch (s & 0xffff) {
    case 0x00c0: return EV_INSTRUCTIONS;
    case 0x003c: case 0x013c: return EV_CYCLES;
    case 0x00c4: return EV_BRANCHES;      // BR_INST_RETIRED.ALL_BRANCHES, near ones
    case 0x01c4: return EV_CONDITIONAL;   // BR_INST_RETIRED.CONDITIONAL, Nehalem to Comet Lake
    default: return EV_NONE;              // cache events and the like never count
  }
}

void BX_CPU_C::pmu_init(void)
{
  memset(&PMU, 0, sizeof PMU);
  read_settings();
  PMU.timer = bx_pc_system.register_timer_ticks(BX_CPU(0), BX_CPU_C::pmu_timer_handler, 0, 0, 0, "pmu");
  PMU.late_timer = bx_pc_system.register_timer_ticks(BX_CPU(0), BX_CPU_C::pmu_late_handler, 0, 0, 0, "pmu skid");
}

void BX_CPU_C::pmu_timer_handler(void *)
{
  BX_CPU(0)->pmu_sync(0);
}

void BX_CPU_C::pmu_late_handler(void *)
{
  bx_pc_system.deactivate_timer(BX_CPU(0)->pmu.late_timer);
  BX_CPU(0)->lapic->deliver_pmi();
}

// Account everything retired since the last call to the counters enabled at PMU.user;
// inflight: the instruction executing now will still retire and must not be counted.
void BX_CPU_C::pmu_sync(unsigned inflight)
{
  Bit64u now[EVENTS] = { 0, BX_CPU_THIS_PTR icount - PMU.nonretired + PMU.overcount, bx_pc_system.time_ticks(),
                         PMU.conditional + PMU.unconditional, PMU.conditional };
  bool overflow = false, pmi = false;
  for (unsigned i=0; i<8; i++) {
    unsigned k = event_of(PMU, i, PMU.user, &pmi);
    if (k == EV_NONE || now[k] <= PMU.last[k]) continue;
    Bit64u v = PMU.ctr[i] + now[k] - PMU.last[k];
    if (v > PMU_MASK) {
      PMU.global_status |= i < 4 ? (BX_CONST64(1) << (32+i)) : (BX_CONST64(1) << (i-4));
      overflow |= pmi;
    }
    PMU.ctr[i] = v & PMU_MASK;
  }
  now[EV_INSTRUCTIONS] += inflight;
  for (unsigned k=1; k<EVENTS; k++)
    if (now[k] > PMU.last[k]) PMU.last[k] = now[k];
  PMU.user = BX_CPU_THIS_PTR user_pl;
  if (overflow) {
    unsigned skid = draw(settings.skid);
    // the time that timers go by lags behind inside a trace
    Bit64u lag = BX_CPU_THIS_PTR icount - BX_CPU_THIS_PTR icount_last_sync;
    if (skid) bx_pc_system.activate_timer_ticks(PMU.late_timer, skid + lag, 0);
    else BX_CPU_THIS_PTR lapic->deliver_pmi();
  }

  // the next look: no event can come sooner than one an instruction
  Bit64u next = ~BX_CONST64(0);
  PMU.active = false;
  for (unsigned i=0; i<8; i++) {
    if (event_of(PMU, i, false, &pmi) != EV_NONE || event_of(PMU, i, true, &pmi) != EV_NONE) PMU.active = true;
    unsigned k = event_of(PMU, i, PMU.user, &pmi);
    if (k == EV_NONE || !pmi) continue;
    Bit64u left = PMU_MASK + 1 - PMU.ctr[i];
    if (left < next) next = left;
  }
  bx_pc_system.deactivate_timer(PMU.timer);
  if (next != ~BX_CONST64(0)) bx_pc_system.activate_timer_ticks(PMU.timer, next, 0);
}

void BX_CPU_C::pmu_deviate(unsigned cause)
{
  unsigned extra = PMU.active ? draw(settings.overcount[cause]) : 0;
  if (!extra) return;
  PMU.overcount += extra;
  pmu_sync(0);   // an overflow is nearer now
}

void BX_CPU_C::pmu_set_global_ctrl(Bit64u val)
{
  pmu_sync(0);
  PMU.global_ctrl = val & GLOBAL_CTRL_BITS;
  pmu_sync(0);
}

Bit64u BX_CPU_C::pmu_read_ctr(unsigned i) { pmu_sync(0); return PMU.ctr[i]; }

bool BX_CPU_C::pmu_rdmsr(Bit32u idx, Bit64u *val)
{
  if (!settings.present) return false;
  if (idx >= 0xc1 && idx <= 0xc4) *val = pmu_read_ctr(4 + idx - 0xc1);
  else if (idx >= 0x186 && idx <= 0x189) *val = PMU.evtsel[idx - 0x186];
  else if (idx >= 0x309 && idx <= 0x30b) *val = pmu_read_ctr(idx - 0x309);
  else if (idx == 0x38d) *val = PMU.fixed_ctrl;
  else if (idx == 0x38e) { pmu_sync(0); *val = PMU.global_status; }
  else if (idx == 0x38f) *val = PMU.global_ctrl;
  else if (idx == 0x390) *val = 0;
  else return false;
  return true;
}

bool BX_CPU_C::pmu_wrmsr(Bit32u idx, Bit64u val)
{
  if (!settings.present) return false;
  if (!((idx >= 0xc1 && idx <= 0xc4) || (idx >= 0x186 && idx <= 0x189) || (idx >= 0x309 && idx <= 0x30b) || (idx >= 0x38d && idx <= 0x390)))
    return false;
  pmu_sync(0);
  if (idx <= 0xc4) PMU.ctr[4 + idx - 0xc1] = (Bit64u)(Bit64s)(Bit32s) val & PMU_MASK;
  else if (idx <= 0x189) PMU.evtsel[idx - 0x186] = val & 0xffffffff;
  else if (idx <= 0x30b) PMU.ctr[idx - 0x309] = val & PMU_MASK;
  else if (idx == 0x38d) PMU.fixed_ctrl = val & 0xbbb;
  else if (idx == 0x38f) PMU.global_ctrl = val & GLOBAL_CTRL_BITS;
  else if (idx == 0x390) PMU.global_status &= ~val;
  // this WRMSR is itself in flight: not counted
  pmu_sync(1);
  return true;
}
