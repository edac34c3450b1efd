"""LIBERO's tasks simulated and drawn by the thousand on a GPU, by MuJoCo Warp.

`export` writes a task down where LIBERO and its MuJoCo are installed; `worlds` simulates it where mujoco-warp is,
whose MuJoCo is another: the two need environments of their own.
"""
