#!/bin/sh
# bin/sluice-server of a package: becomes the server that was built for this CPU. exec: it is process 1 of a container,
# so SIGTERM reaches it and it drains. SLUICE_CPU_KIND names a kind instead, SLUICE_CPUINFO another /proc/cpuinfo.
set -eu
here=$(cd "$(dirname "$(readlink -f "$0")")/.." && pwd)
flags=" $(sed -n 's/^flags[[:space:]]*: //p' "${SLUICE_CPUINFO:-/proc/cpuinfo}" | head -1) "

has() {
  for flag in "$@"; do
    case $flags in *" $flag "*) ;; *) return 1 ;; esac
  done
}
usable() {
  case $1 in
    x86-64-amx) usable x86-64-vnni && has avx512_bf16 amx_tile amx_int8 ;;
    x86-64-vnni) has avx512f avx512bw avx512cd avx512dq avx512vl avx512vbmi avx512_vnni ;;
    x86-64-v4) has avx512f avx512bw avx512cd avx512dq avx512vl ;;
    x86-64-v3) has avx avx2 fma f16c bmi2 ;;
    x86-64-v2) has sse4_2 popcnt ssse3 ;;
  esac
}

chosen=${SLUICE_CPU_KIND:-}
for kind in native x86-64-amx x86-64-vnni x86-64-v4 x86-64-v3 x86-64-v2; do
  [ -z "$chosen" ] && [ -x "$here/libexec/sluice-server-$kind" ] || continue
  if [ "$kind" = native ] || usable "$kind"; then chosen=$kind; fi
done
if [ -z "$chosen" ]; then
  echo "sluice-server: no build in $here/libexec runs on this CPU; it needs SSE4.2 at least" >&2
  exit 2
fi
unset SLUICE_CPU_KIND SLUICE_CPUINFO  # the server refuses variables that it does not know
exec "$here/libexec/sluice-server-$chosen" "$@"
