"""From a spec string to a policy: `make_policy`, `register_policy`, `known_policies`.

A spec is `NAME`, `NAME:TARGET` or `NAME:key=value,key=value`: ``random``, ``zero``, ``replay:PATH``, ``expert``,
``expert:noise=0.1,fail=drop``, ``clone:PATH``, ``ws://host:8000?preset=openpi``, ``lerobot:PATH``; or a factory of your
own, ``module:factory?key=value``.
"""

__all__ = ["known_policies", "make_policy", "register_policy"]

from vlac_gym.policies.base import Policy
from vlac_gym.policies.own import adopt_policy
from vlac_gym.specs.registry import Registry

_POLICIES: Registry[Policy] = Registry(
    "policy",
    "'expert' or 'replay:actions.npy'",
    {
        "clone": "vlac_gym.clone.acting:from_spec",
        "expert": "vlac_gym.policies.expert:ExpertPolicy.from_spec",
        "lerobot": "vlac_gym.policies.lerobot:from_spec",
        "random": "vlac_gym.policies.simple:RandomPolicy.from_spec",
        "replay": "vlac_gym.policies.replay:ReplayPolicy.from_spec",
        "ws": "vlac_gym.policies.websocket:from_ws",
        "wss": "vlac_gym.policies.websocket:from_wss",
        "zero": "vlac_gym.policies.simple:ZeroPolicy.from_spec",
    },
    adopt_policy,
)


def known_policies() -> dict[str, str]:
    """Names that `make_policy` knows, with the factory behind each."""
    return _POLICIES.known()


def register_policy(name: str, target: str) -> None:
    """Adds a policy to the table that `make_policy` reads.

    Args:
        name: What a spec begins with: letters, digits and underscores.
        target: `module:callable`, imported on first use; called as `callable(argument)` with the text after
            the name. `vlac_gym.specs.options.read_argument` takes that text apart.

    Raises:
        ConfigError: The name is taken or malformed, or the target has no colon.
    """
    _POLICIES.register(name, target)


def make_policy(spec: str) -> Policy:
    """Builds the policy that a spec names.

    Args:
        spec: `random`, `zero`, `replay:PATH`, `expert:noise=0.1,fail=drop`, `ws://host:8000?preset=openpi`,
            `my_lab.policies:make_policy?checkpoint=PATH`, …

    Raises:
        ConfigError: Unknown name, or an argument that does not fit.
    """
    return _POLICIES.make(spec)
