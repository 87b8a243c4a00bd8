#!/bin/bash
# A build on Slurm: Ray's head on the first node, a Ray node on each other, then the build; killed, it goes on.
#   sbatch --export=NONE,RECIPE=salmonn,ROOT=/shared/root,OUT=/shared/salmonn deploy/slurm.sh
# From the checkout, on storage that all nodes see, after `make setup` there.
#SBATCH --job-name=salmonn-build
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --mem=24G
#SBATCH --time=12:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --requeue

set -euo pipefail

: "${RECIPE:?the name of a recipe, or the path of its TOML file}"
: "${ROOT:?the folder of the corpora, on storage that all nodes see}"
: "${OUT:?the folder of the dataset, on storage that all nodes see}"
checkout=${CHECKOUT:-${SLURM_SUBMIT_DIR:-$PWD}}
cpus=${SLURM_CPUS_PER_TASK:-1}

# `make setup` has made this; without it the build would be whatever `salmonn` lies on the path.
PATH=$checkout/.venv/bin:$PATH
export PATH
if [ ! -x "$checkout/.venv/bin/salmonn" ]; then
  echo "no salmonn in $checkout/.venv: run make setup there, or set CHECKOUT" >&2
  exit 2
fi

# A token of this job alone, in a file that only its user reads. srun hands on the file's name, never the token.
secret=$(umask 077 && mktemp "$checkout/.ray-token-XXXXXXXX")
python -c 'import secrets; print(secrets.token_hex(32), end="")' >"$secret"
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$secret RAY_USAGE_STATS_ENABLED=0
unset RAY_AUTH_TOKEN RAY_ADDRESS

started=()
# shellcheck disable=SC2329  # called by the trap
finish() {
  trap - EXIT TERM INT
  # The head last: a node whose head is gone waits half a minute for it.
  for step in "${started[@]:1}"; do kill -TERM "$step" 2>/dev/null || true; done
  for step in "${started[@]:1}"; do wait "$step" 2>/dev/null || true; done
  for step in "${started[@]:0:1}"; do kill -TERM "$step" 2>/dev/null || true; done
  wait || true
  rm -f -- "$secret"
}
trap finish EXIT
trap 'exit 143' TERM INT

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]}
ip=$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address)
ip=${ip%% *}
# Ray's workers take 10002 to 19999; jobs that share a node must not share a port.
port=$((20000 + SLURM_JOB_ID % 10000))
small=(--object-store-memory=104857600 --disable-usage-stats --block)

# No dashboard: nobody submits to this cluster, so nothing listens for it.
srun --nodes=1 --ntasks=1 --cpus-per-task="$cpus" --nodelist="$head" \
  ray start --head --node-ip-address="$ip" --port="$port" --include-dashboard=false --num-cpus="$cpus" "${small[@]}" &
started+=("$!")
for _ in $(seq 60); do
  ray health-check --address "$ip:$port" >/dev/null 2>&1 && break
  kill -0 "${started[0]}" || { echo "Ray's head did not start on $head" >&2; exit 1; }
  sleep 2
done
for node in "${nodes[@]:1}"; do
  srun --nodes=1 --ntasks=1 --cpus-per-task="$cpus" --nodelist="$node" \
    ray start --address="$ip:$port" --num-cpus="$cpus" "${small[@]}" &
  started+=("$!")
done

# In the background, so that Slurm's TERM is heard at once. Nodes that come later are used as they come.
salmonn build --root="$ROOT" --out="$OUT" --address="$ip:$port" -- "$RECIPE" &
build=$!
started+=("$build")
code=0
wait "$build" || code=$?
exit "$code"
