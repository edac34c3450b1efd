#!/usr/bin/env bash
# GRPO for OpenVLA-OFT on a critic's verdicts, from a checkout of SimpleVLA-RL at 7c51662:
#   SIMPLEVLA=/path/to/SimpleVLA-RL SFT_MODEL_PATH=/path/to/model ./run_openvla_oft_rl.sh [hydra overrides]
# ./run_openvla_oft_rl.sh --dry-run [overrides]  composes the configuration, checks it, prints sizes and memory, starts nothing;
# ./run_openvla_oft_rl.sh --cfg job              prints it whole.
# The numbers are those of the checkout's examples/run_openvla_oft_rl_libero.sh.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
settings="$(realpath "${VLAC_GYM_SETTINGS:-$here/config.yaml}")"
suite="${DATASET_NAME:-libero_10}"
gpus="${NUM_GPUS:-8}"
model="${SFT_MODEL_PATH:?Set SFT_MODEL_PATH to an OpenVLA-OFT checkpoint}"

cd "${SIMPLEVLA:?Set SIMPLEVLA to a checkout of SimpleVLA-RL at 7c51662}"
# Ahead of an installed verl, whose name the checkout shares.
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
export ROBOT_PLATFORM=LIBERO

is_dry="" is_started=1 given=()
for argument in "$@"; do
  case "$argument" in
    --dry-run) is_dry=1 ;;
    --cfg) is_started="" given+=("$argument") ;;
    *) given+=("$argument") ;;
  esac
done
# Environment variables reach the workers through this file, in place of the checkout's align.json.
runtime_env="$(mktemp --suffix .json)"
cat > "$runtime_env" <<JSON
{"env_vars": {"VLAC_GYM_SETTINGS": "$settings", "ROBOT_PLATFORM": "LIBERO", "PYTHONPATH": "$PYTHONPATH",
 "MUJOCO_GL": "${MUJOCO_GL:-egl}", "PYOPENGL_PLATFORM": "${MUJOCO_GL:-egl}", "TOKENIZERS_PARALLELISM": "true",
 "NCCL_DEBUG": "WARN", "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}}
JSON

overrides=(
  actor_rollout_ref.model.external_lib="${EXTERNAL_LIB:-verl_env_adapter.simplevla.plugin}"
  data.task_suite_name="$suite"
  data.num_trials_per_task=50
  data.n_samples=8
  data.filter_accuracy=True
  data.accuracy_lower_bound="${REWARD_LOWER_BOUND:-0.1}"
  data.accuracy_upper_bound="${REWARD_UPPER_BOUND:-0.9}"
  data.oversample_factor=1
  data.train_batch_size=64
  data.val_batch_size=496
  data.max_prompt_length=256
  data.max_response_length=128
  actor_rollout_ref.model.path="$model"
  actor_rollout_ref.model.vla=openvla-oft
  actor_rollout_ref.model.action_token_len=7
  actor_rollout_ref.model.action_chunks_len=8
  actor_rollout_ref.model.enable_gradient_checkpointing=False
  actor_rollout_ref.model.use_remove_padding=False
  actor_rollout_ref.actor.optim.lr=5e-6
  actor_rollout_ref.actor.optim.warmup_style=constant
  actor_rollout_ref.actor.ppo_mini_batch_size=128
  actor_rollout_ref.actor.ppo_micro_batch_size="$gpus"
  actor_rollout_ref.actor.use_dynamic_bsz=False
  actor_rollout_ref.actor.fsdp_config.param_offload=False
  actor_rollout_ref.actor.fsdp_config.grad_offload=True
  actor_rollout_ref.actor.fsdp_config.optimizer_offload=True
  actor_rollout_ref.actor.grad_clip=1
  actor_rollout_ref.actor.clip_ratio_high=0.28
  actor_rollout_ref.actor.clip_ratio_low=0.2
  actor_rollout_ref.actor.num_images_in_input=1
  actor_rollout_ref.actor.traj_mini_batch_size=16
  actor_rollout_ref.actor.entropy_coeff=0.
  actor_rollout_ref.rollout.num_images_in_input=1
  actor_rollout_ref.rollout.use_proprio=False
  actor_rollout_ref.rollout.val_micro_batch_size=8
  actor_rollout_ref.rollout.micro_batch_size=1
  actor_rollout_ref.rollout.temperature=1.6
  actor_rollout_ref.rollout.experiment_name="${EXPERIMENT_NAME:-vlac}"
  actor_rollout_ref.rollout.unnorm_key="$suite"
  actor_rollout_ref.rollout.model_family=openvla
  actor_rollout_ref.rollout.task_suite_name="$suite"
  actor_rollout_ref.rollout.num_steps_wait=10
  actor_rollout_ref.rollout.pretrained_checkpoint="$model"
  actor_rollout_ref.rollout.center_crop=True
  actor_rollout_ref.rollout.max_prompt_length=512
  actor_rollout_ref.rollout.log_prob_micro_batch_size=32
  actor_rollout_ref.rollout.tensor_model_parallel_size=1
  actor_rollout_ref.rollout.name=hf
  actor_rollout_ref.rollout.gpu_memory_utilization=0.9
  actor_rollout_ref.ref.log_prob_micro_batch_size=32
  actor_rollout_ref.ref.fsdp_config.param_offload=True
  algorithm.adv_estimator=grpo
  algorithm.kl_ctrl.kl_coef=0.00
  algorithm.adv_params.verifier_gamma=1.0
  algorithm.adv_params.reward_model_gamma=1.0
  trainer.logger="['console']"
  trainer.project_name="${PROJECT_NAME:-vlac-gym}"
  trainer.experiment_name="${EXPERIMENT_NAME:-vlac}"
  trainer.default_local_dir="${CKPT_PATH:-./outputs/vlac}"
  trainer.n_gpus_per_node="$gpus"
  trainer.nnodes="${NUM_NODES:-1}"
  trainer.save_freq=25
  trainer.test_freq=4
  trainer.total_epochs=100
  trainer.val_only=False
  trainer.val_before_train=True
  trainer.runtime_env="$runtime_env"
)
if [[ -n "$is_dry" ]]; then
  exec "${PYTHON:-python}" -m verl_env_adapter.simplevla.check --checkout . -- "${overrides[@]}" "${given[@]}"
fi
# The checkpoint's own code has to be the trainer's; the checkout's recipe puts it there, too.
[[ -z "$is_started" ]] || bash examples/overwrite_vla_ckpt_utils.sh "$model"
exec "${PYTHON:-python}" -u -m verl.trainer.main_ppo "${overrides[@]}" "${given[@]}"
