# The machine of intel.sh with a PMU, as exact or as noisy as --pmu says (bochs/pmu.cc). Sourced by scripts/testbed.
pmu=${pmu:-exact}
. "$root/scripts/testbeds/intel.sh"
