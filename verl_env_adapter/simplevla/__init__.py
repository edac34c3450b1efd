"""SimpleVLA-RL; `plugin` is its ``external_lib``, `sleeping` that for a critic on the policy's cards."""
