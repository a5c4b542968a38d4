#!/bin/bash
# Light-MoCo on two machines of eight GPUs under SLURM: srun starts one process per GPU, softedge finds its place.
#   sbatch examples/slurm_pretrain.sh
# Killed or out of time: submit it again, it goes on where it was. SIGTERM (sent 120 s before the end) writes a
# checkpoint first.
#SBATCH --job-name=light-moco
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120

srun softedge pretrain --data /data/imagenet --recipe light-moco --out runs/light-moco
