#!/bin/bash
# Light-MoCo on two machines of eight GPUs under SLURM: srun starts one process per GPU, softedge finds its place.
#   sbatch examples/slurm_pretrain.sh
# Killed or out of time: submit it again, it goes on where it was. SIGTERM (sent to the processes 120 s before the end)
# writes a checkpoint first. The run folder and the images must be on a file system that all machines see.
#SBATCH --job-name=light-moco
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120

# srun does not take the cores per task over from sbatch (since SLURM 22.05): without this a process has one core.
export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK
# A process that ends with an error ends the others at once, not after the 30 minutes they would wait for it.
srun --kill-on-bad-exit=1 softedge pretrain --data /data/imagenet --recipe light-moco --out runs/light-moco
