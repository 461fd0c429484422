# The machine of intel.sh with a PMU, as exact or as noisy as --pmu says (bochs/pmu.cc). Sourced by scripts/testbed.
pmu=${pmu:-exact}
setting='(exact|seed=[0-9]+|(skid|interrupt|fault|entry)=(random:)?[0-9]+)'
[[ $pmu =~ ^$setting(,$setting)*$ ]] || usage
. "$root/scripts/testbeds/intel.sh"
