#!/bin/bash
# Train on one or more machines under SLURM. The job puts itself back into the queue when its time is
# over, and goes on where it was: the same command continues the newest unfinished run.
#
# Submit it in the folder of the project; what follows its name is what torchrun runs:
#   sbatch --nodes=2 --gpus-per-node=4 tools/slurm_train.sh \
#       main.py --dataset FRFS --dataset_path /data --iter_size 8 --experiment_name night
#
# Variables of the environment:
#   PROCESSES      processes per machine; as many as it has GPUs, else 1
#   RESTARTS       how often torchrun starts all processes anew after one has crashed; 0
#   MOST_REQUEUES  how often the job puts itself back at most; 100
#
#SBATCH --job-name=gate-shift-pose
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --time=24:00:00
#SBATCH --output=slurm-%j.log
# Two minutes before its time is over, the job gets a signal; its output goes on in the same file.
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append

set -u

if [ "$#" -eq 0 ]; then
    echo "error: no program is named: sbatch tools/slurm_train.sh main.py --dataset ..." >&2
    exit 2
fi
if [ -z "${SLURM_JOB_ID:-}" ]; then
    echo "error: this is no SLURM job: submit it with sbatch, or run torchrun yourself" >&2
    exit 2
fi

cd "${SLURM_SUBMIT_DIR:-.}" || exit 2
if [ -d .venv/bin ]; then
    PATH="$PWD/.venv/bin:$PATH"
fi
# torchrun waits 30 seconds for processes that save, unless told otherwise.
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT="${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-90}"

count="${SLURM_RESTART_COUNT:-0}"
hosts="$(scontrol show hostnames "${SLURM_JOB_NODELIST:-localhost}")"
first="${hosts%%$'\n'*}"
port="$((20000 + SLURM_JOB_ID % 20000))"

asked=no    # to stop, because the time is over
heard=no    # a signal since the last wait began
stop() {
    asked=yes
    pass_on
}
pass_on() {
    heard=yes
    # srun hands USR1 to all processes; on TERM it would kill them.
    kill -USR1 "$training" 2>/dev/null
}

srun --kill-on-bad-exit=1 torchrun \
    --nnodes="${SLURM_JOB_NUM_NODES:-1}" \
    --nproc-per-node="${PROCESSES:-${SLURM_GPUS_ON_NODE:-1}}" \
    --max-restarts="${RESTARTS:-0}" \
    --signals-to-handle=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1 \
    --rdzv-id="$SLURM_JOB_ID-$count" \
    --rdzv-backend=c10d \
    --rdzv-endpoint="$first:$port" \
    "$@" &
training="$!"
trap stop USR1
trap pass_on TERM

# A trap ends `wait` before the training has ended.
while true; do
    heard=no
    wait "$training"
    code="$?"
    [ "$heard" = yes ] || break
done

if [ "$code" -eq 0 ]; then
    exit 0
fi
# 143: the program was asked to stop and has saved. torchrun says 1 for that, as for any failure.
if [ "$asked" = no ] && [ "$code" -ne 143 ]; then
    echo "the training failed with exit code $code: it is not put back into the queue" >&2
    exit "$code"
fi
if [ "$count" -ge "${MOST_REQUEUES:-100}" ]; then
    echo "the job was put back $count times (MOST_REQUEUES): it is not put back again" >&2
    exit "$code"
fi
echo "put back into the queue after $count times before" >&2
scontrol requeue "$SLURM_JOB_ID"
