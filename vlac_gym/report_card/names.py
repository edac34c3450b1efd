"""What the card's metrics are called and mean, for readers: `SECTIONS`, `METRICS`, `HEADLINES`, `label_of`."""

__all__ = ["HEADLINES", "METRICS", "SECTIONS", "label_of"]

HEADLINES: dict[str, str] = {
    "done_auroc_frames": "AUROC of success_prob, all frames",
    "done_f1_frames": "F1 of single frames at done_threshold",
    "episode_f1": "F1 of episodes, recommended rule",
    "false_positive_rate": "failed episodes stopped as done",
    "miss_rate": "successful episodes never stopped",
    "delay_steps_median": "median delay of the stop, env steps",
    "voc_successes": "VOC: value rises in order, successes",
    "auroc_final_value": "AUROC of the final value for success",
}
"""The numbers on top of the page; those of stops are the recommended rule's."""

SECTIONS: dict[str, tuple[str, str]] = {
    "detection": (
        "Success detection",
        "Does the score tell success from failure? Threshold: done_threshold of the configuration.",
    ),
    "termination": (
        "Stopping, default rule",
        "The configured threshold and patience, applied online to every episode.",
    ),
    "termination_recommended": ("Stopping, recommended rule", "The same with the recommended thresholds."),
    "progress": (
        "Progress and value",
        "Does the curve follow the work done? Successes are looked at up to their first success.",
    ),
    "robustness": (
        "Robustness and language",
        "The last frame of probed episodes in other words, pictures and views.",
    ),
    "training": (
        "What a policy would be paid",
        "Return: 1 if the critic stops the episode, else the final value. Groups share task and start.",
    ),
    "cost": (
        "Cost",
        "On this machine: calls while judging, without the probes, and calls by batch size on new frames.",
    ),
    "under_optimisation": (
        "Under optimisation",
        "Searches for what the critic pays and the simulator does not, by the recommended rule; other runs by theirs.",
    ),
}
"""Section -> (title, one line), in the page's order; the last is there where the critic was attacked."""

METRICS: dict[str, tuple[str, str]] = {
    "auroc": ("AUROC", "chance that a success scores higher than a failure"),
    "auprc": ("average precision", "area under precision over recall"),
    "fpr_at_tpr_0.9": ("FPR at TPR 0.9", "false positives if nine in ten successes must be found"),
    "tpr_at_fpr_0.01": ("TPR at FPR 0.01", "successes found if one failure in 100 may pass"),
    "tpr_at_fpr_0.05": ("TPR at FPR 0.05", "successes found if one failure in 20 may pass"),
    "brier": ("Brier score", "mean squared error of the score; 0.25 is always saying 0.5"),
    "calibration_error": ("calibration error", "mean gap between score and success rate, ten bins"),
    "tpr": ("true-positive rate", "successes called success"),
    "fpr": ("false-positive rate", "failures called success"),
    "precision": ("precision", "verdicts of success that are right"),
    "f1": ("F1", "harmonic mean of precision and true-positive rate"),
    "balanced_accuracy": ("balanced accuracy", "mean of the two classes' accuracies"),
    "youden_j": ("Youden's J", "TPR + TNR - 1: by this factor the critic shrinks differences of success rates"),
    "cohen_kappa": ("Cohen's kappa", "agreement beyond chance"),
    "mse": ("squared error", "mean of (final value - outcome)²"),
    "p_value_against_rest": ("p-value", "that this kind's rate equals the others', Bonferroni-corrected"),
    "false_stop_rate": ("false stops", "of all stops, those before any success"),
    "false_positive_rate": ("false-positive rate", "failed episodes that are stopped as done"),
    "premature_stop_rate": ("premature stops", "successful episodes stopped before their success"),
    "miss_rate": ("misses", "successful episodes never stopped"),
    "success_at_stop": ("success at the stop", "stops at which the simulator agrees at that very step"),
    "hazard_per_1000_checks": ("hazard", "false stops per 1,000 checks made before success"),
    "delay_steps_median": ("median delay", "env steps from first success to the stop"),
    "delay_steps_p90": ("delay, 90th percentile", "env steps from first success to the stop"),
    "wasted_steps_mean": ("wasted steps", "env steps run on after success, per successful episode"),
    "check_fpr": ("false positives per check", "on episodes that never succeed"),
    "independent_episode_fpr": ("if errors were independent", "false-positive rate that the rate per check would give"),
    "false_stops_that_would_have_succeeded": ("would have succeeded", "false stops on episodes that succeed later"),
    "error_autocorrelation": ("autocorrelation of errors", "between neighbouring checks of failed episodes"),
    "success_once": ("success at any step", "share of the recorded episodes"),
    "success_at_end": ("success at the end", "share of the recorded episodes"),
    "voc": ("VOC", "Spearman of value and time, mean over episodes"),
    "vroc": ("VROC", "the same on the reversed video"),
    "voc_f1": ("VOC-F1", "harmonic mean of VOC and VROC"),
    "negative_rate": ("negative rate", "pairs with progress below 0"),
    "flat_curves": ("flat curves", "episodes whose value never varies; they have no VOC"),
    "voc_gap": ("VOC gap", "successes minus failures"),
    "order_successes": ("order, successful episodes", ""),
    "order_failures": ("order, failed episodes", ""),
    "kendall_tau_a": ("Kendall's tau-a", "final value against outcome"),
    "pairwise_accuracy": ("pairwise accuracy", "a success ends higher than a failure of the same task"),
    "spearman": ("Spearman with the truth", "value against the simulator's goal progress, mean over episodes"),
    "sign_accuracy": ("sign accuracy", "pairs whose progress has the sign of the true change"),
    "regression_recall": ("regression recall", "true losses answered with negative progress"),
    "antisymmetry_error": ("antisymmetry error", "mean |c(a, b) + c(b, a)|"),
    "identity_error": ("identity error", "mean |c(a, a)|"),
    "path_error": ("path error", "mean difference of two half steps and one whole step"),
    "frozen_video_value": ("frozen video", "largest value on one frame shown over and over; should be below 0.05"),
    "shuffled_order": ("shuffled frames", "Spearman of value and order; should be near 0"),
    "idle_final_value": ("idle robot", "final value of an arm that never moves; should be near 0"),
    "wrong_instruction_false_success": ("wrong instruction", "successes still called so under another task's text"),
    "paraphrase_flip_rate": ("paraphrase flips", "episodes whose verdict changes with the wording"),
    "unusable_paraphrase_answers": ("unusable paraphrases", "wordings that got no number in range"),
    "paraphrase_std": ("paraphrase spread", "standard deviation of the score over wordings"),
    "flip_rate": ("verdict flips", "last frames whose verdict changes"),
    "unchanged": ("the judged view, unchanged", ""),
    "rotated_180": ("turned by 180 degrees", ""),
    "mirrored": ("mirrored", ""),
    "jpeg_30": ("JPEG of quality 30", ""),
    "darker_40_percent": ("40 % darker", ""),
    "half_resolution": ("half the resolution", ""),
    "views": ("other recorded views of the same moments", ""),
    "group_kendall_tau": ("group ranking", "Kendall's tau of the returns within groups, relative to the best possible"),
    "advantage_sign_agreement": ("advantage signs", "rollouts whose advantage has the simulator's sign"),
    "pure_noise_groups": ("pure-noise groups", "the simulator sees no difference, the critic does"),
    "lost_gradient_groups": ("lost gradients", "the simulator sees a difference, the critic does not"),
    "length_return_correlation": ("length bias", "correlation of episode length and return"),
    "idle_return": ("idle return", "paid to an arm that never moves; should be near 0"),
    "final_value_of_failures": ("final value of failures", "mean over episodes that never succeed"),
    "final_value_of_missed_successes": (
        "final value of missed successes",
        "mean over episodes that end in success and are never stopped",
    ),
    "final_value_of_failures_by_kind": ("mean final value by kind of failed episode", ""),
    "return_by_task": ("mean return by task", ""),
    "return_spread_by_task": ("standard deviation of the return by task", ""),
    "questions_per_episode": ("questions per episode", "frames and pairs asked about"),
    "unusable_answers": ("unusable answers", "questions without a number in range"),
    "gpu_memory_gib": ("GPU memory, GiB", "held by torch: peak in this process, or the server's; no CUDA context"),
    "stall_fraction": ("stall", "wait for the critic / (wait + rollout), at batch 1 and nothing else running"),
    "by_batch": ("by batch size, on frames never seen before", ""),
    "new_success_prob": ("done checks, new frames", ""),
    "new_progress": ("pairs, new frames", ""),
    "success_prob": ("done checks while judging", ""),
    "progress": ("pairs while judging; most frames were seen before", ""),
    "value": ("value lists while judging; most frames were seen before", ""),
    "items_per_s": ("frames or pairs per second", ""),
    "latency_ms_p50": ("latency, median", "ms per call"),
    "latency_ms_p95": ("latency, 95th percentile", "ms per call"),
    "mean_batch": ("mean batch", "frames or pairs per call"),
    "by_kind": ("false positives by kind of failed episode (single checks)", ""),
    "deployed": ("precision when deployed, last frames", ""),
    "wrong_stops": ("wrong stops", "episodes ended as done before the simulator saw success"),
    "reward_of_failure": ("reward of failures", "mean return of what never succeeded until its end; 1 is a success's"),
    "simulator_success": ("success", "episodes in which the simulator saw success until their end"),
    "cheats": ("scripted cheats, by kind", ""),
    "best_of_k": ("the best paid of so many failures at one start; shares are of starts", ""),
    "filtered_imitation": ("imitation of what the critic called done", ""),
    "hover": ("held above its place", ""),
    "push": ("pushed along the table", ""),
    "empty_hand": ("put down with an empty hand", ""),
    "block_view": ("hand before the camera", ""),
    "near_miss": ("put down 3 to 10 cm beside", ""),
    "beside": ("put down 13 to 18 cm beside", ""),
    "drop": ("dropped on the way", ""),
    "stop": ("stopped early", ""),
    "frames": ("every checked frame", ""),
    "last_frame": ("last frame of each episode", ""),
}  # fmt: skip
"""Metric or group -> (name, meaning)."""

_LIGHTS = {
    "diffuse": "in a warm light",
    "direction": "lit from the side",
    "specular": "with stronger highlights",
    "shadow": "with shadows",
}


def label_of(name: str) -> str:
    """A metric's or group's name for readers; `batch_16` and `agentview@shadow` are put into words."""
    if name in METRICS:
        return METRICS[name][0]
    camera, at, light = name.partition("@")
    if at:
        return f"{camera} {_LIGHTS.get(light, f'in light {light}')}"
    if name.startswith("batch_"):
        return f"batch of {name.removeprefix('batch_')}"
    return name.replace("_", " ")
