"""What verl's entry-point group ``verl.plugins`` loads, or ``VERL_USE_EXTERNAL_MODULES=verl_env_adapter.verl.plugin``.

Importing it is the installation, since verl imports plugins and calls nothing; see `verl_env_adapter.verl.phase`.
"""

__all__: list[str] = []

from verl_env_adapter.verl.phase import install

install()
