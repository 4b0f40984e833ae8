# Shared by the scripts beside this folder: sourced, never run. Where things lie and what they are called.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cache=${SLUICE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/sluice}
jobs=$(nproc)
script_name=$(basename "$0")

say() { printf '[%s] %s\n' "$script_name" "$*"; }
die() { printf '[%s] error: %s\n' "$script_name" "$*" >&2; exit 1; }

# The block of comment lines at the top of a script is its --help.
help_of() { sed -n '2,/^[^#]/{s/^# \{0,1\}//p}' "$1"; }

engine_version=0.3.36  # of the sdist; requirements-engine.txt pins its hash
# SLUICE_ENGINE_CPU: native, or a kind of CPU that scripts/package builds the engine for besides this one.
case ${SLUICE_ENGINE_CPU:-native} in
  native) engine_cpu_flags=(-DGGML_NATIVE=ON) ;;
  x86-64-v2) engine_cpu_flags=(-DGGML_NATIVE=OFF -DGGML_{AVX,AVX2,FMA,F16C,BMI2}=OFF) ;;
  x86-64-v3) engine_cpu_flags=(-DGGML_NATIVE=OFF) ;;
  x86-64-v4) engine_cpu_flags=(-DGGML_NATIVE=OFF -DGGML_AVX512=ON) ;;
  x86-64-amx) engine_cpu_flags=(-DGGML_NATIVE=OFF -DGGML_AVX512{,_VBMI,_VNNI,_BF16}=ON -DGGML_AMX_{TILE,INT8}=ON) ;;
  x86-64-vnni) engine_cpu_flags=(-DGGML_NATIVE=OFF -DGGML_AVX512{,_VBMI,_VNNI}=ON) ;;
  *)
    printf 'SLUICE_ENGINE_CPU=%s: allowed: native, x86-64-v2, -v3, -v4, -vnni, -amx\n' "$SLUICE_ENGINE_CPU" >&2
    exit 1
    ;;
esac
engine_flags=(
  -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=OFF "${engine_cpu_flags[@]}" -DGGML_OPENMP=ON -DLLAMA_OPENSSL=OFF
  -DLLAMA_BUILD_COMMON=ON -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF
  -DLLAMA_BUILD_UI=OFF -DLLAMA_BUILD_MTMD=OFF)
engine_library_flags=(-DLLAMA_BUILD_TOOLS=OFF -DLLAMA_BUILD_SERVER=OFF)
# Force-included into every C++ file.
engine_fix=$root/scripts/lib/engine_fixes.h
model_name=SmolLM2-135M-Instruct
model_source=$cache/models/$model_name.Q4_1.gguf  # as the wheel ships it
model_source_sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
model=$cache/models/$model_name.Q8_0.gguf  # what is served: has repacked kernels, Q4_1 has none

# The engine library is compiled for the CPU at hand, so a cache shared between machines holds one build for each kind.
engine_key() {
  local cpu
  cpu=$(uname -m && grep -E '^(model name|CPU part|flags|Features)' /proc/cpuinfo | sort -u) || true
  printf '%s-%s' "$engine_version" \
    "$(printf '%s\n' "$cpu" "$(c++ --version 2>/dev/null | head -1)" "${engine_flags[@]}" \
      "$(sha256sum <"$engine_fix")" | sha256sum | cut -c1-12)"
}

# SLUICE_LLAMA_PREFIX from the environment wins: a llama.cpp of one's own, see docs/adr/0003-set-up-sources.md
export_paths() {
  export SLUICE_LLAMA_PREFIX=${SLUICE_LLAMA_PREFIX:-$cache/engine/$(engine_key)}
  # Paths below the checkout are hashed as relative ones, so that a second checkout reuses the objects of the first.
  export CCACHE_DIR=${CCACHE_DIR:-$cache/ccache} CCACHE_BASEDIR=$root CCACHE_NOHASHDIR=1
}

# locked COMMAND...: one at a time for each cache, so that two checkouts never build or fetch the same thing twice.
locked() {
  mkdir -p "$cache"
  exec 9>"$cache/.lock"
  flock -n 9 || { say "waiting for another set-up that uses $cache"; flock 9; }
  rm -rf "$cache/tmp"  # left by a run that was killed
  "$@"
  exec 9>&-
}

# scratch: a fresh folder inside the cache (same file system, so that a finished build is renamed into place whole).
scratch() { mkdir -p "$cache/tmp" && mktemp -d "$cache/tmp/XXXXXX"; }

# extract_engine_source FOLDER: FOLDER/llama.cpp, fetched when the cache has no sdist with the pinned hash.
extract_engine_source() {
  local sdist=$cache/downloads/llama_cpp_python-$engine_version.tar.gz
  if ! verify "$sdist" "$(sed -n 's/.*--hash=sha256://p' "$root/scripts/lib/requirements-engine.txt")"; then
    say "fetching the engine source (llama-cpp-python $engine_version, 77 MB)"
    PYTHONPATH=$root/scripts/lib/sdist_stub SLUICE_SDIST_NAME=llama-cpp-python SLUICE_SDIST_VERSION=$engine_version \
      fetch requirements-engine.txt --no-binary llama-cpp-python --no-build-isolation
  fi
  say "unpacking the engine source"
  tar -xzf "$sdist" -C "$1" --strip-components=2 "llama_cpp_python-$engine_version/vendor/llama.cpp"
  cp "$engine_fix" "$1/"
}

# fetch REQUIREMENTS PIP_OPTION...: into $cache/downloads. pip checks the hashes; a file gets its name when complete.
fetch() {
  local into requirements=$root/scripts/lib/$1
  into=$(scratch)
  python_pip download --no-cache-dir --no-deps --require-hashes -r "$requirements" -d "$into" "${@:2}" ||
    die "pip could not download what ${requirements#"$root"/} pins"
  mkdir -p "$cache/downloads"
  mv -f "$into"/* "$cache/downloads/"
  rmdir "$into"
}

# The first python3 that has pip: one put before Debian's in PATH may lack it.
python_pip() {
  local python
  for python in python3 /usr/bin/python3; do
    "$python" -c 'import pip' 2>/dev/null || continue
    "$python" -m pip "$1" --quiet --disable-pip-version-check "${@:2}"
    return
  done
  die "no python3 with pip, install the Debian package python3-pip"
}

verify() { [[ -f $1 ]] && sha256sum --check --status <<<"$2  $1"; }

# configure PRESET: only when something asks for it, since an unchanged tree shall start at once.
configure() {
  local cache_file=$root/build/$1/CMakeCache.txt
  if ! grep -qsxF "SLUICE_LLAMA_PREFIX:PATH=$SLUICE_LLAMA_PREFIX" "$cache_file" ||
    [[ $root/CMakePresets.json -nt $cache_file || ! -f $root/build/$1/build.ninja ]]; then
    say "configuring build/$1"
    (cd "$root" && cmake --fresh --preset "$1" >"$cache/configure-$1.log" 2>&1) ||
      { tail -30 "$cache/configure-$1.log" >&2; die "cmake --preset $1 failed"; }
  fi
}

# build PRESET TARGET...: without targets, everything.
build() {
  configure "$1"
  say "building build/$1 (${*:2})"
  cmake --build "$root/build/$1" --parallel "$jobs" ${2:+--target "${@:2}"}
}

# quantize_model SERVER_BINARY: the default model as Q8_0, made once per cache.
quantize_model() {
  [[ -f $model ]] || locked quantize_locked "$1"
}
quantize_locked() {
  [[ -f $model ]] && return  # another checkout was faster
  say "requantizing $model_name to Q8_0 (once)"
  "$1" quantize "$model_source" "$model.part" || die "$1 could not requantize $model_source"
  mv "$model.part" "$model"
}
