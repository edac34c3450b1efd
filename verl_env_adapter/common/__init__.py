"""What the adapters share: settings, pools of envs, conversions, import hooks."""
