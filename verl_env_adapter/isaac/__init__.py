"""verl's Isaac env as one Gymnasium env: `env.IsaacLiberoEnv`."""
