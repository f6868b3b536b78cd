#!/usr/bin/env bash
# Train on several nodes:  sbatch scripts/slurm_train.sh --config voc_vits16 --data.root /data/VOC2012
# The arguments are those of train.py; --output must be on storage that all nodes share. Shortly before the time
# limit, and when the job is preempted, the run saves a checkpoint and the job is requeued; then the run resumes.
#SBATCH --job-name=hcl
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=12:00:00
#SBATCH --signal=B:TERM@180
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
set -uo pipefail
cd "${SLURM_SUBMIT_DIR:-.}" || exit 2

head_node=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
# Jobs on the same node need different ports.
port=$((20000 + SLURM_JOB_ID % 10000))

torchrun=(
    "${PYTHON:-python}" -m torch.distributed.run
    --nnodes="$SLURM_NNODES"
    --nproc_per_node="${SLURM_GPUS_ON_NODE:-1}"
    --rdzv_id="$SLURM_JOB_ID"
    --rdzv_backend=c10d
    --rdzv_endpoint="$head_node:$port"
    --module hcl.commands.train --resume
)

# Since Slurm 22.05, srun does not take the number of CPUs per task from the job.
export SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK:-1}"

requeue=
stop() {
    requeue=yes
    kill -TERM "$step"
}
trap stop TERM

srun --kill-on-bad-exit=1 "${torchrun[@]}" "$@" &
step=$!
wait "$step"
status=$?
if [[ $requeue ]]; then
    wait "$step" # the signal ended the first wait, not the run
    exec scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
