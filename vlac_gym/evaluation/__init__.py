"""Success of a policy, judged by the simulator alone, over official starts; and comparisons of such runs."""
