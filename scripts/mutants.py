"""Change one line of the package at a time, and run the tests that should fail.

    python scripts/mutants.py results.jsonl                     run the mutants that results.jsonl lacks
    python scripts/mutants.py results.jsonl --only scores.      only those whose names start with this
    python scripts/mutants.py results.jsonl --table             print a table of the results
    python scripts/mutants.py --compare before.jsonl after.jsonl
    python scripts/mutants.py --places                          check that every place is found exactly once

A mutant is one wrong line: a flipped sign, a bound that is off by one, a key that omits a fact. Each is applied to a
copy of the checkout, where `pytest -x` runs the tests that should fail, the cheapest first. A mutant that survives
shows a missing test, or a line that has no effect. Runs one process at low priority; a mutant takes about ten seconds
of CPU, a surviving one up to minutes.

The place of a mutant is a fragment of source in a function. It is searched in the whole package, so that it is found
after the function has moved to another module.
"""

import argparse
import ast
import importlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "s2snet"
KILLED, SURVIVED, TIMEOUT, BROKEN, MISSING = "killed", "survived", "timeout", "broken", "missing"

# Test files and folders, the cheapest first. A file that has moved is found by its name.
BALLS = "attacks/test_balls.py attacks/test_closed_form.py attacks/test_released.py attacks"
LOSSES = "attacks/test_losses.py attacks/test_closed_form.py attacks"
CLIMBS = "attacks/test_apgd.py attacks/test_gradients.py attacks/test_uap.py attacks/test_square.py"
CLIMBS += " attacks/test_options.py attacks/test_closed_form.py attacks/test_peers_findings.py attacks/test_contract.py"
NEAREST = "attacks/test_minimal.py attacks/test_options.py attacks/test_contract.py attacks/test_peers_findings.py"
LINES = "evaluation/test_single_lines.py"
SCORES = f"{LINES} evaluation/test_scores.py evaluation/test_measures.py checks/test_of_record.py"
REFEREE = f"{LINES} evaluation/test_ledger.py evaluation/test_measures.py evaluation/test_foreign.py"
REFEREE += " evaluation/test_evaluation.py"
LEDGER = "test_atomic_io.py evaluation/test_ledger.py evaluation/test_keep.py evaluation/test_ranks.py"
LEDGER += " evaluation/test_evaluation.py"
CELLS = (
    f"{LINES} evaluation/test_seeds.py evaluation/test_targets.py evaluation/test_minimal_cells.py "
    "evaluation/test_random.py evaluation/test_keep.py evaluation/test_universal.py evaluation/test_foreign.py "
    "evaluation/test_evaluation.py evaluation/test_surrogates.py evaluation/test_threats.py"
)
ENGINE = (
    f"{LINES} evaluation/test_ledger.py evaluation/test_minimal_cells.py evaluation/test_seeds.py "
    "evaluation/test_keep.py evaluation/test_evaluation.py evaluation/test_targets.py evaluation/test_random.py "
    "evaluation/test_ranks.py evaluation/test_foreign.py evaluation/test_threats.py"
)
OF_RECORD = "audit/test_result_checks.py audit/test_audit.py audit/test_gallery.py"
OF_ATTACKS = "audit/test_attack_checks.py audit/test_audit.py audit/test_gallery.py"
OF_GRADIENTS = "audit/test_defence_checks.py audit/test_audit.py audit/test_gallery.py"
OF_ROUTES = "audit/test_defence_checks.py audit/test_audit.py audit/test_gallery.py"
CHECKS = "audit/test_attack_checks.py audit/test_result_checks.py audit/test_headline_budget.py audit report"


@dataclass(frozen=True)
class Mutant:
    name: str
    tests: str
    place: tuple[str, str, str]  # (function or Class.method, fragment, replacement)


def of(tests: str, prefix: str, **places: tuple[str, str, str]) -> list[Mutant]:
    """Return mutants that are named `prefix.key`."""
    return [Mutant(f"{prefix}.{name}", tests, place) for name, place in places.items()]


def forgets(fact: str) -> tuple[str, str, str]:
    """Return the place of a mutant whose keys omit this fact."""
    return (
        "key_of",
        "json.dumps(preimage, sort_keys=True)",
        f'json.dumps({{k: v for k, v in preimage.items() if k != "{fact}"}}, sort_keys=True)',
    )


MUTANTS = [
    *of(
        BALLS,
        "balls",
        lower_bound_leaves_the_box=(
            "Ball.__init__",
            "_inwards(images, -self.eps).clamp_(min=0)",
            "_inwards(images, -self.eps)",
        ),
        upper_bound_leaves_the_box=(
            "Ball.__init__",
            "_inwards(images, self.eps).clamp_(max=1)",
            "_inwards(images, self.eps)",
        ),
        bounds_are_rounded_to_nearest=("_inwards", "range(2)", "range(0)"),
        bounds_are_an_ulp_too_tight=("_inwards", ".abs() > abs(shift)", ".abs() >= abs(shift)"),
        some_rows_get_the_first_images_bounds=(
            "Ball.rows",
            "self.lower[rows], self.upper[rows]",
            "self.lower[: len(rows)], self.upper[: len(rows)]",
        ),
        linf_starts_in_the_upper_half=(
            "Ball.start",
            "(2 * noise.uniform(self.images, rows, restart) - 1)",
            "noise.uniform(self.images, rows, restart)",
        ),
        l2_radius_without_its_exponent=(
            "Ball.start",
            "first ** (1 / max(1, self.images.flatten(1).shape[1]))",
            "first",
        ),
        inner_starts_lie_on_the_rim=("Ball.start", "first if inner else", "first if not inner else"),
        l1_starts_have_positive_signs=("Ball.start", "< 0.5).to(sizes) * 2 - 1", "< 2).to(sizes) * 2 - 1"),
        linf_step_is_the_gradient=("Ball.steepest", "return gradient.sign()", "return gradient"),
        l1_step_moves_stuck_pixels=(
            "Ball.steepest",
            "((points >= 1) & (gradient > 0))",
            "((points >= 1) & (gradient > 1e30))",
        ),
        l1_step_takes_one_pixel_more=(
            "Ball.steepest",
            "max(1, round(self.sparsity * flat.shape[1]))",
            "1 + round(self.sparsity * flat.shape[1])",
        ),
        linf_projection_dropped=("Ball.project", "return points.clamp(self.lower, self.upper)", "return points"),
        l2_projection_inflates=("Ball.project", ".clamp(max=1), delta)", ".clamp(min=1), delta)"),
        l2_projection_forgets_the_box=(
            "Ball.project",
            "points = (self.images + delta).clamp(0, 1)",
            "points = self.images + delta",
        ),
        projection_trusts_float32=("Ball.project", "if not outside.any():", "if True:"),
        projection_allows_a_millionth=("Ball.project", "self.eps * (1 - 1e-12)", "self.eps * (1 + 1e-6)"),
        projection_shrinks_far_too_much=("Ball.project", "for less in (1e-6,", "for less in (1e-2,"),
        l1_room_is_on_the_other_side=(
            "_nearest_l1",
            "torch.where(delta > 0, 1 - images, images)",
            "torch.where(delta > 0, images, 1 - images)",
        ),
        l1_cut_is_one_piece_off=("_nearest_l1", "cut = corners.gather(1, place - 1)", "cut = corners.gather(1, place)"),
        l1_points_inside_are_cut_too=("_nearest_l1", "cut = torch.where(inside, 0, cut)", "cut = cut"),
        l2_distance_is_l1=("distance", '{"l1": 1, "l2": 2}', '{"l1": 1, "l2": 1}'),
        linf_distance_is_signed=("distance", "delta.abs().amax(dim=1)", "delta.amax(dim=1)"),
        eight_bits_round_away=("eight_bits", "torch.where(scaled > clean,", "torch.where(scaled < clean,"),
        unit_vectors_underflow=("unit", "torch.where(largest > 0, largest, 1)", "torch.ones_like(largest)"),
    ),
    *of(
        LOSSES,
        "losses",
        margin_has_the_wrong_sign=(
            "margin",
            "return _best_other(logits, labels) - _of(logits, labels)",
            "return _of(logits, labels) - _best_other(logits, labels)",
        ),
        margin_of_targets_has_the_wrong_sign=(
            "margin",
            "return _of(logits, targets) - _best_other(logits, targets)",
            "return _best_other(logits, targets) - _of(logits, targets)",
        ),
        best_other_may_be_the_label=("_hide", "-torch.inf", "0"),
        cross_entropy_pushes_targets_away=("cross_entropy", "value if targets is None else -value", "value"),
        saturated_gradient_is_lost=("cross_entropy", "lead < -_SATURATED,", "lead < -1e9,"),
        dlr_over_the_wrong_spread=("dlr", "top[:, 0] - top[:, 2] + 1e-12", "top[:, 0] - top[:, 1] + 1e-12"),
        dlr_of_targets_over_a_sum=("dlr", "(top[:, 2] + top[:, 3]) / 2", "(top[:, 2] + top[:, 3])"),
        dlr_of_three_classes_is_the_margin=("dlr", "classes < (3 if", "classes <= (3 if"),
        probability_margin_of_logits=("probability_margin", "_wide(logits).softmax(dim=1)", "_wide(logits)"),
        nan_is_right=("fooled", "return ~finite | (prediction != labels)", "return prediction != labels"),
        nan_reaches_any_target=("fooled", "finite & (prediction == targets)", "~finite | (prediction == targets)"),
        kappa_is_not_asked_for=("clearly_fooled", ">= kappa) &", ">= 0) &"),
        half_precision_stays_half=("_wide", "logits.float()", "logits"),
    ),
    *of(
        CLIMBS,
        "attacks",
        fgsm_leaves_the_box=("fgsm", "ball.project(images + eps", "(images + eps"),
        pgd_steps_downhill=("pgd", "x + step_size *", "x - step_size *"),
        pgd_forgets_the_last_iterate=(
            "pgd",
            "best.update(rows, x, *objective.evaluate(x, rows))",
            "objective.evaluate(x, rows)",
        ),
        pgd_restarts_start_alike=("pgd", "start(noise, rows, restart,", "start(noise, rows, 0,"),
        mim_gradients_are_not_scaled=("mim", "scaled.to(gradient.dtype)", "gradient"),
        apgd_never_halves=("apgd", "torch.where(halve, size / 2, size)", "size"),
        apgd_never_goes_back=("apgd", "torch.where(wide, top_x, x), torch", "x, torch"),
        apgd_has_one_condition=("apgd", "slow | (~halved & (top <= top_at_checkpoint))", "slow"),
        apgd_checkpoints_are_even=("_checkpoints", "- 0.03, 0.06", "- 0.0, 0.06"),
        apgd_first_step_has_momentum=("apgd", "1 - momentum if step else 1.0", "1 - momentum"),
        apgd_aims_at_the_label=("apgd", ".scatter(1, labels[:, None], -torch.inf).argsort", ".argsort"),
        square_keeps_what_is_worse=("square", "better = (now > value)", "better = (now < value)"),
        square_never_shrinks=("_side", "area / 2**halvings", "area"),
        uap_fooled_images_pull=("uap", "spread(value < cap,", "spread(value < torch.inf,"),
        uap_steps_do_not_fall=("uap", "length * (1 - step / steps)", "length"),
        uap_leaves_the_ball=("uap", "delta.clamp(-eps, eps)", "delta"),
        best_is_by_loss_alone=("Best.update", "(fools & ~before) |", ""),
        best_takes_the_last_of_equals=("Best.update", "> self.loss[rows]", ">= self.loss[rows]"),
        nan_gradients_stay=("Objective.backward", "gradient.nan_to_num(0, 0, 0)", "gradient"),
        draws_are_summed=("Objective.gradient", "(item / self.draws for item in total)", "(item for item in total)"),
        passes_are_the_batchs=(
            "Objective.forward",
            "self.passes.forwards[rows.cpu()] += 1",
            "self.passes.forwards += 1",
        ),
        models_may_move_the_image=("Objective.forward", "self.model(x.clone())", "self.model(x)"),
        buffers_are_not_restored=("untouched", "buffer.copy_(value)", "pass"),
        modes_are_not_restored=("untouched", "module.training = mode", "pass"),
        gradients_are_not_restored=("untouched", "parameter.grad = grad", "pass"),
        random_states_are_not_restored=("untouched", "numpy.random.set_state(states[1])", "pass"),
        radii_of_255_pass=("check", "eps > 1:", "eps > 255:"),
        restarts_draw_alike=("Noise._draw", "{restart} {draw}", "{draw}"),
        draws_draw_alike=("Noise._draw", "{restart} {draw}", "{restart}"),
    ),
    *of(
        NEAREST,
        "nearest",
        the_farthest_is_kept=("NearestFooling.update", "(length < self.distance[rows])", "(length < torch.inf)"),
        the_way_back_is_away=(
            "NearestFooling.refine",
            "torch.where(fools, low, middle)",
            "torch.where(fools, middle, low)",
        ),
        no_last_verdict=("NearestFooling.refine", "self.images[rows[~fools]] = self.clean[rows[~fools]]", "pass"),
        rounding_counts_as_fooling=("NearestFooling.__init__", "2e-5 *", "0 *"),
        cw_weight_falls_after_failures=("cw", "between, low * 10)", "between, low / 10)"),
        cw_forgets_kappa=("cw", "< kappa + 2", "< 0 * kappa + 2"),
        cw_aborts_at_once=("cw", "lowest <= 0.9999 * before", "lowest <= 0.5 * before"),
        cw_steps_do_not_fall=("cw", "0.01 + 0.99 * (1 + math.cos(math.pi * step / steps)) / 2", "1.0"),
        ddn_radius_grows_after_success=(
            "ddn",
            "(1 - gamma) * radius, (1 + gamma)",
            "(1 + gamma) * radius, (1 - gamma)",
        ),
        fmn_radius_grows_after_success=("fmn", "best_length) * (1 - change)", "best_length) * (1 + change)"),
        deepfool_forgets_its_overshoot=("deepfool", "(1 + overshoot) * -gains", "-gains"),
        deepfool_goes_to_the_farthest_class=("deepfool", "length.argmin(", "length.argmax("),
        deepfool_sees_no_walls=("_reach", "range(30)", "range(1)"),
        lbfgs_weight_falls_after_failures=("lbfgs", "c = low * 10 if", "c = low / 10 if"),
        lbfgs_leaves_the_box=("lbfgs", "bounds=[(0, 1)] *", "bounds=[(-1, 2)] *"),
    ),
    *of(
        SCORES,
        "scores",
        wilson_takes_the_one_sided_quantile=("wilson", "(1 + confidence) / 2", "confidence"),
        wilson_centre_is_off=("wilson", "share + z * z / (2 * n)", "share - z * z / (2 * n)"),
        wilson_forgets_the_square=("wilson", "(z / (2 * n)) ** 2", "(z / (2 * n))"),
        wilson_is_for_90_percent=("wilson", "confidence: float = 0.95", "confidence: float = 0.9"),
        wilson_low_end_at_none=("wilson", "0.0 if successes == 0 else", "0.0 if successes < 0 else"),
        minimal_at_the_budget_counts_as_right=("Scores._add", "right | (size > eps)", "right | (size >= eps)"),
        minimal_failures_have_a_size=("Scores._add", "np.where(correct, np.inf,", "np.where(correct, 0.0,"),
        any_target_counts_as_reached=(
            "Scores._add",
            'group["prediction"].to_numpy() == target',
            'group["prediction"].to_numpy() >= 0',
        ),
        failed_cells_count_as_done=("Scores._missing", 'if cell["status"] != "done":', 'if cell["status"] == "":'),
        cells_without_rows_count_as_done=("Scores._missing", "elif part.seen is None:", "elif False:"),
        worst_case_without_the_clean_images=("Scores.table", "clean[label[0]] + parts", "parts"),
        worst_case_is_the_best_case=(
            "Scores._outcome",
            "np.all([part.right for part in usable], axis=0)",
            "np.any([part.right for part in usable], axis=0)",
        ),
        missing_images_count_as_withstood=("Scores._outcome", "seen & np.all([part.right", "np.all([part.right"),
        lacking_images_are_not_reported=("Scores._outcome", "if lacking and not part.failure:", "if lacking < 0:"),
        incomplete_is_done=("Scores._outcome", 'if missing else "done"', 'if not parts else "done"'),
        most_images_of_the_seeds=("Scores._line", 'n = min(outcome["n"]', 'n = max(outcome["n"]'),
        spread_of_one_seed_is_none=("Scores._line", "max(shares) - min(shares)", "max(shares) + min(shares)"),
        success_over_all_images=("Scores._line", 'outcome["seen"] & unattacked["right"]', 'outcome["seen"]'),
        success_is_what_withstood=("Scores._line", '~outcome["right"]', 'outcome["right"]'),
        seeds_share_their_cells=("Scores._of", "part.seed in (seed, EVERY_SEED)", "True"),
        median_takes_the_lower_middle=("_median", "[len(values) // 2]", "[(len(values) - 1) // 2]"),
        headline_is_the_first_line=("headline", 'or line["route"] == WORST_CASE', 'or line["route"] == ""'),
        table_reads_empty_as_zero=(
            "read_table",
            "float(line[column]) if line[column] else None",
            "float(line[column] or 0)",
        ),
    ),
    *of(
        REFEREE,
        "referee",
        nan_passes=("verdict", "~flat.isfinite()", "flat.isinf()"),
        box_is_not_checked=("verdict", "(flat < 0) | (flat > 1)", "(flat < -1) | (flat > 2)"),
        type_is_not_checked=("verdict", "or adversarial.dtype != images.dtype", ""),
        ball_has_slack=("verdict", "- eps", "- eps * (1 + 1e-6)"),
        every_ball_is_l2=("verdict", "distances(images, adversarial)[norm]", 'distances(images, adversarial)["l2"]'),
        l1_is_a_mean=("distances", "delta.abs().sum(dim=1)", "delta.abs().mean(dim=1)"),
        normalised_by_the_attacked_image=(
            "distances",
            "l2 / clean.flatten(1).norm(dim=1)",
            "l2 / moved.flatten(1).norm(dim=1)",
        ),
        standardised_without_the_mean=("distances", "((clean - shift[:, None, None]) /", "(clean /"),
        distances_in_float32=(
            "distances",
            "images.double(), adversarial.double()",
            "images.float(), adversarial.float()",
        ),
        quality_of_unclipped_images=("quality", "purified.clamp(0, 1)", "purified"),
    ),
    *of(
        CELLS,
        "cells",
        **{
            f"key_forgets_{fact}": forgets(fact)
            for fact in (
                "source",
                "route",
                "fit",
                "options",
                "version",
                "norm",
                "budget",
                "leave_early",
                "precision",
                "seed",
                "data",
                "chunk",
                "schema",
                "attack",
                "training_images",
                "file",
                "eight_bits",
            )
        },
        version_is_not_the_attacks=("_crafted", '"version": function.version', '"version": 1'),
        key_depends_on_the_order=("key_of", "sort_keys=True", "sort_keys=False"),
        random_sources_leave_early=("_source", "and not facts.random(module)", ""),
        several_judges_leave_early=("_source", "all(other.sole_judge", "any(other.sole_judge"),
        random_starts_need_no_seeds=("PlannedAttack.draws_random_numbers", "return bool(starts or", "return bool("),
        eot_takes_the_attacks_own_draws=(
            "_crafted",
            'max(source.attempt.options["draws"], options.get("draws", 1))',
            'options.get("draws", 1)',
        ),
        minimal_attacks_run_at_each_radius=("_crafted", "[None] if function.minimal else radii", "radii"),
        fast_copies_are_not_told_apart=(
            "_differs",
            "return copy.classifier is not module.classifier or",
            "return False and",
        ),
        unknown_options_are_taken=("planned_attack", "if option not in known:", "if not option:"),
    ),
    *of(
        LEDGER,
        "ledger",
        tensors_are_not_checked=("Ledger._tensors", "if stated == _checksum(tensors) else", "if tensors else"),
        rows_are_not_checked=("Ledger.judged", "if stated == _checksum_of_rows(rows) else", "if len(rows) else"),
        checksum_ignores_the_numbers=(
            "_checksum",
            "tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()",
            'b""',
        ),
        checksum_ignores_the_names=(
            "_checksum",
            'f"{name} {tensor.dtype} {tuple(tensor.shape)}"',
            'f"{tuple(tensor.shape)}"',
        ),
        checksum_of_rows_ignores_the_numbers=(
            "_checksum_of_rows",
            "rows[name].drop_null().to_numpy().tobytes()",
            'b""',
        ),
        checksum_of_rows_ignores_nulls=(
            "_checksum_of_rows",
            "digest.update(rows[name].is_valid().to_numpy().tobytes())",
            "pass",
        ),
        damaged_files_stay=("Ledger._set_aside", 'os.replace(path, path.with_name(path.name + ".damaged"))', "pass"),
        damaged_files_are_not_named=("Ledger._set_aside", "self.damaged.append(str(path))", "pass"),
        two_runs_share_a_ledger=("Ledger.__init__", "if not hold:", "if True:"),
        a_lock_is_kept=("Ledger.close", "self._lock.release()", "pass"),
        samples_take_the_place_of_chunks=("Ledger._crafted_path", "'.sample' if sample else ''", "''"),
        judges_share_their_rows=("Ledger._judged_path", "judge[:32]", '"judge"'),
        failures_are_never_forgotten=("Ledger.forget_failures", "path.unlink()", "pass"),
        one_failure_a_cell=("Ledger.keep_failure", 'f"{key}.{chunk:05d}.json"', 'f"{key}.{0:05d}.json"'),
        files_are_written_in_place=(
            "make_whole",
            "try: write(temporary)",
            "try:\n        write(path)\n        write(temporary)",
        ),
        files_are_not_synced=("make_whole", "_sync(temporary)", "pass"),
        a_full_disk_leaves_parts=("make_whole", "temporary.unlink(missing_ok=True)", "pass"),
    ),
    *of(
        ENGINE,
        "engine",
        last_chunk_is_too_long=("chunks", "min(start + size, count)", "start + size"),
        nan_answers_the_same_twice=("deterministic", "| (first.isnan() & second.isnan())", ""),
        a_random_module_is_deterministic=("deterministic", "return bool(", "return True or bool("),
        failed_chunks_count_as_done=(
            "Engine.run",
            "self.ledger.keep_failure(cell.key, number, reason_of(error))",
            "reason_of(error)",
        ),
        ranks_do_all_work=("Engine.run", "if owner[number, place] == self.ranks.rank", "if True"),
        failed_cells_are_done=("Engine.conclude", "if failed:", "if not self.cells:"),
        shorter_chunks_count_as_done=("Engine._judged", "len(rows) >= expected", "len(rows) >= 0"),
        longer_chunks_give_more_rows=("Engine._judged", "rows.slice(0, expected)", "rows"),
        what_the_referee_refuses_is_kept=(
            "Engine._craft",
            "if not ruling.ok: self.ledger.keep_failure(cell.key, chunk.number, ruling.reason) return None",
            "pass",
        ),
        other_images_of_a_chunk_are_used=(
            "Engine._craft",
            'torch.equal(kept["image"][: len(chunk.index)], chunk.index)',
            "True",
        ),
        early_leavers_are_not_checked=("Engine._craft", "if len(survivors):", "if False:"),
        foreign_images_are_not_refereed=("Engine._given", "if not ruling.ok:", "if False:"),
        leaves_early_whatever_the_cell_says=("Engine._attack", "cell.leave_early and not whole", "not whole"),
        radius_is_halved=("Engine._attack", 'options["eps"] = cell.budget', 'options["eps"] = cell.budget / 2'),
        noise_forgets_the_image=("Engine._attack", "Noise(cell.seed or 0, chunk.index[rows])", "Noise(cell.seed or 0)"),
        noise_forgets_the_seed=(
            "Engine._attack",
            "Noise(cell.seed or 0, chunk.index[rows])",
            "Noise(0, chunk.index[rows])",
        ),
        passes_are_not_counted=(
            "Engine._attack",
            "passes.forwards[rows] += forwards",
            "passes.forwards[rows] += 0 * forwards",
        ),
        targets_are_the_labels=(
            "Engine._targets",
            "TARGETS[aim](cell.source, chunk.images, chunk.labels,",
            "TARGETS[aim](cell.source, chunk.images, chunk.labels - 1,",
        ),
        non_finite_answers_have_a_class=(
            "Engine._judge",
            "torch.where(finite, logits.argmax(dim=1), -1)",
            "logits.argmax(dim=1)",
        ),
        correct_is_wrong_by_one=(
            "Engine._judge",
            '"correct": prediction == chunk.labels',
            '"correct": prediction != chunk.labels - 1',
        ),
        margin_has_the_wrong_sign=("Engine._judge", ".squeeze(1) - best_other", ".squeeze(1) + best_other"),
        distances_are_to_the_purified=(
            "Engine._judge",
            "distances(chunk.images, adversarial,",
            "distances(chunk.images, cleaned,",
        ),
        judges_draw_anew=(
            "Engine._judge",
            "repeatable(cell.seed or 0, self.judges[name], chunk.number)",
            "repeatable(cell.seed or 0, cell.key, chunk.number)",
        ),
        a_full_disk_is_a_cells_failure=(
            "reason_of",
            "if isinstance(error, OSError):",
            "if isinstance(error, KeyError):",
        ),
        purified_signal_is_of_the_attacked=(
            "Engine._judge",
            "(cleaned - purified_clean)",
            "(adversarial - purified_clean)",
        ),
    ),
    *of(
        OF_RECORD,
        "of_record",
        ball_and_box_allows_a_hundredth=("ball_and_box", "else 0.0)", "else 0.01)"),
        foreign_images_have_no_slack=(
            "ball_and_box",
            'ROUNDING if cell.naming["threat"] == "foreign"',
            '0.0 if cell.naming["threat"] == "foreign"',
        ),
        recomputed_never_fires=("recomputed", 'FAIL if measured["differ"] else', 'FAIL if measured["differ"] < 0 else'),
        label_alignment_never_fires=("label_alignment", "matches[0] + by_chance", "matches[0] + 1"),
        input_range_never_fires=(
            "input_range",
            'FAIL if measured["outside"] else',
            'FAIL if measured["outside"] > 1 else',
        ),
        counted_passes_takes_fewer=("counted_passes", "if least < claimed * (1 - 1e-6):", "if least < 0:"),
        counted_passes_forgets_steps=(
            "counted_passes",
            '["options"].get("steps") or 0)',
            '["options"].get("steps") and 0 or 0)',
        ),
        counted_passes_looks_at_fooled_images=(
            "counted_passes",
            "rows.correct if early else",
            "~rows.correct if early else",
        ),
        step_budget_sees_no_short_steps=("step_budget", "if reach < 1 or", "if reach < 0 or"),
        step_budget_sees_no_long_steps=("step_budget", "or size > 2 * eps", "or size > 1e9 * eps"),
        denominators_never_fail=("denominators", 'line["images"] != selected', 'line["images"] > selected'),
        denominators_never_warn=("denominators", "grade(widest, 0.05, 1.0)", "grade(widest, 0.5, 1.0)"),
        worst_case_is_not_recomputed=("worst_case", "> 1e-6:", "> 1:"),
        worst_case_ignores_failed_cells=("worst_case", "WARN if incomplete else", "WARN if False else"),
        leakage_never_fires=("leakage", "FAIL if equal else", "FAIL if equal < 0 else"),
        near_leakage_never_fires=("leakage", "WARN if near else", "WARN if near < 0 else"),
    ),
    *of(
        OF_ATTACKS,
        "of_attacks",
        single_steps_may_find_more=("iterative_vs_single", "n > 1 and share > POINT", "n > 1 and share > 1"),
        one_image_of_a_single_step_is_fine=("iterative_vs_single", "(n > 0, n > 1", "(n > 1, n > 1"),
        noise_may_find_more=("noise", "FAIL if missed > 1", "FAIL if missed > 1000"),
        noise_counts_what_attacks_found=("noise", "(~fooled[by_noise] &", "(fooled[by_noise] &"),
        masked_gradients_pass=("_masked", "share > 0.005, share > 0.02", "share > 0.05, share > 0.2"),
        only_counts_wrong_images=("_fooled_only_by", "by_weak & ~by_strong & correct", "by_weak & ~by_strong"),
        controls_compare_the_accuracy=(
            "controls",
            'tuned["low"] > control["accuracy"]',
            'tuned["accuracy"] > control["accuracy"]',
        ),
        random_control_never_fires=("random_control", "PASS if low > control", "PASS if low > control - 1"),
        minimal_vs_budget_never_fails=("minimal_vs_budget", "> 0.05 for", "> 5 for"),
        minimal_vs_budget_never_warns=("minimal_vs_budget", "abs(largest) > 0.02", "abs(largest) > 2"),
        converged_never_fails=("converged", "FAIL if n > POINT * of", "FAIL if n > of"),
        converged_counts_what_was_found=("converged", "& ~fooled]", "& (fooled | ~fooled)]"),
        active_test_never_fires=("active_test", "n, 0.05, 0.1)", "n, 0.5, 1.0)"),
        active_test_believes_luck=("active_test", "or chance > 0.05", "or chance > 1"),
        monotone_looks_the_other_way=("monotone", "(after - before for", "(before - after for"),
        eps_one_never_fails=("eps_one", "0.0, chance)", "0.0, 1.0)"),
    ),
    *of(
        OF_GRADIENTS,
        "of_gradients",
        randomness_never_fires=(
            "randomness",
            'grade(measured["logits"], 1e-6, 1e-4)',
            'grade(measured["logits"], 1e6, 1e6)',
        ),
        training_mode_passes=("test_time_state", "if measured[name]:", "if measured[name] is None:"),
        batches_may_matter=(
            "test_time_state",
            'grade(measured["batch"], 1e-4, 1e-3)',
            'grade(measured["batch"], 1e4, 1e4)',
        ),
        probabilities_pass=(
            "output_head",
            'FAIL if measured["probabilities"]',
            'FAIL if measured["log_probabilities"]',
        ),
        saturated_logits_pass=("saturated_logits", 'measured["lost"] > 0.01', 'measured["lost"] > 1'),
        zero_gradients_pass=("zero_gradients", 'FAIL if measured["zero"] or', "FAIL if"),
        absent_gradients_pass=("zero_gradients", 'or not measured["reaches_images"]', ""),
        nan_gradients_pass=(
            "nan_gradients",
            "FAIL if gradients + logits + judged",
            "FAIL if gradients + logits + judged < 0",
        ),
        finite_differences_pass=("finite_differences", 'value["median"] > 1e-2', 'value["median"] > 1e9'),
        jumps_pass=("jumps", "SOME_JUMPS, ALL_JUMPS)", "2.0, 2.0)"),
        curvature_passes=("curvature", "FAIL if ratio < 0.1", "FAIL if ratio < -10"),
        ascent_passes=(
            "ascent",
            "grade(1 - max(shares.values()), 0.1, 0.25)",
            "grade(1 - max(shares.values()), 1.0, 1.0)",
        ),
        surrogates_pass=("surrogate_valid", "min(shares.values()) < 0.75", "max(shares.values()) < 0.75"),
        inner_loops_pass=("inner_optimisation", "FAIL if calls else", "FAIL if calls < 0 else"),
        admission_admits_all=("admission", '["zero"] > 0', '["zero"] > 1'),
        the_purifier_is_never_faulty=(
            "faulty_part",
            'for part in ("purifier", "classifier"):',
            'for part in ("classifier", "purifier"):',
        ),
    ),
    *of(
        OF_ROUTES,
        "of_routes",
        zero_gradients_need_no_route=("_needed_routes", 'get("zero", 0) > 0', 'get("zero", 0) > 1'),
        kinks_need_no_route=("_needed_routes", 'part["share_off"] > 0.1', 'part["share_off"] > 1'),
        randomness_needs_no_route=("_needed_routes", '.get("logits", 0) > 1e-4', '.get("logits", 0) > 1e4'),
        far_purifiers_need_no_route=("_needed_routes", "> FAR", "> 100 * FAR"),
        any_route_will_do=("compulsory_routes", "if not used & set(routes)", "if not used"),
    ),
    *of(
        CHECKS,
        "checks",
        warnings_hide_failures=("summary", "for verdict in (FAIL, WARN):", "for verdict in (WARN, FAIL):"),
        worst_is_the_mildest=("worst", "min(verdicts", "max(verdicts"),
        graded_at_the_bound=("grade", "FAIL if value > fail", "FAIL if value >= fail"),
        findings_of_the_whole_are_left_out=("verdicts", 'finding.defence in (name, "")', "finding.defence == name"),
        audits_that_are_off_pass=("write", "dict.fromkeys(names, OFF)", 'dict.fromkeys(names, "PASS")'),
        errors_of_probes_pass=(
            "reads_probe",
            'yield Answer(defence["name"], NOT_APPLICABLE,',
            'yield Answer(defence["name"], "pass",',
        ),
        fooled_by_any_norm=("Record.fooled", "label[4:] != (norm, eps)", "label[5:] != (eps,)"),
        clean_correct_in_the_last_seed=("Record.clean_correct", "correct &= part.right", "correct = part.right"),
        headline_is_the_largest_radius=("headline_budget", "radii[len(radii) // 2]", "radii[-1]"),
    ),
]


def modules(tree: Path) -> dict[Path, str]:
    return {path: path.read_text() for path in sorted((tree / PACKAGE).rglob("*.py"))}


def functions(source: str) -> Iterator[tuple[str, int, int]]:
    """Yield (name or Class.name, start, end) of each function and method; start and end are offsets in the source."""
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))

    def inside(body: list, prefix: str) -> Iterator[tuple[str, int, int]]:
        for node in body:
            if isinstance(node, ast.ClassDef):
                yield from inside(node.body, f"{node.name}.")
            elif isinstance(node, ast.FunctionDef):
                yield prefix + node.name, starts[node.lineno - 1], starts[node.end_lineno]

    yield from inside(ast.parse(source).body, "")


def mutated(sources: dict[Path, str], mutant: Mutant) -> tuple[Path, str]:
    """Return (file, its changed source). Raises ValueError unless the place is found exactly once.

    White space in the fragment matches any white space, so that formatting does not matter.
    """
    function, fragment, replacement = mutant.place
    pattern = re.compile(r"\s+".join(map(re.escape, fragment.split())))
    places = []
    for path, source in sources.items():
        for name, start, stop in functions(source) if function.rpartition(".")[2] in source else ():
            if name == function:
                places += [(path, match) for match in pattern.finditer(source, start, stop)]
    if len(places) != 1:
        raise ValueError(f"{mutant.name}: {fragment!r} occurs {len(places)} times in {function}, not once; correct it")
    (path, match) = places[0]
    source = sources[path][: match.start()] + replacement + sources[path][match.end() :]
    try:
        ast.parse(source)
    except SyntaxError as error:
        raise ValueError(f"{mutant.name}: {error.msg} in line {error.lineno} of the mutant") from None
    return path, source


def copied(tree: Path, place: Path) -> Path:
    """Copy the tracked files of a checkout, and the untracked ones that git does not ignore, to `place`."""
    listed = subprocess.run(
        ["git", "ls-files", "-coz", "--exclude-standard"], cwd=tree, check=True, capture_output=True, text=True
    ).stdout.split("\0")
    for name in filter(None, listed):
        if (tree / name).is_file():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(tree / name, place / name)
    return place


def files(tree: Path, tests: str) -> list[str]:
    """Return the test files that are there, each once, in the order in which they are to run."""
    paths: list[Path] = []
    for word in tests.split():
        path = tree / "tests" / word
        if not path.exists():  # it was moved
            path = next((tree / "tests").rglob(path.name), path)
        paths += [path] if path.is_file() else sorted(path.rglob("test_*.py"))
    if not paths:
        raise ValueError(f"none of the tests {tests} is there")
    return list(dict.fromkeys(str(path.relative_to(tree)) for path in paths))


def preload() -> None:
    """Import slow libraries once, for all forks; not those that pytest rewrites or that the package patches."""
    for name in ("torch", "scipy.stats", "pyarrow.parquet", "pandas", "sklearn.datasets", "jinja2", "pytest"):
        importlib.import_module(name)


def run_tests(tree: Path, tests: list[str], timeout_s: int) -> tuple[str, str]:
    """Run pytest in a fork of this process; return KILLED, SURVIVED, TIMEOUT or BROKEN, and the test that failed."""
    arguments = [
        "-x",
        "-q",
        "-rfE",
        "-p",
        "no:unraisableexception",
        "--hypothesis-profile=ci",
        *tests,
    ]  # ci: the same examples, no deadline
    with tempfile.TemporaryFile() as output:
        pid = os.fork()
        if pid == 0:
            code = 3
            try:
                os.setsid()
                os.chdir(tree)
                resource.setrlimit(resource.RLIMIT_CPU, (timeout_s, timeout_s + 10))
                os.dup2(output.fileno(), 1)
                os.dup2(output.fileno(), 2)
                os.environ["PYTHONPATH"] = str(tree)
                sys.path.insert(0, str(tree))
                code = int(importlib.import_module("pytest").main(arguments))
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        ends = time.monotonic() + 20 * timeout_s  # for a test that waits forever; wall time, so generous
        while (ended := os.waitpid(pid, os.WNOHANG)) == (0, 0):
            time.sleep(0.1)
            if time.monotonic() > ends:
                os.killpg(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                return TIMEOUT, ""
        output.seek(0)
        text = output.read().decode(errors="replace")
    code = os.waitstatus_to_exitcode(ended[1])
    if code == -signal.SIGXCPU:
        return TIMEOUT, ""
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", text, re.MULTILINE)
    if code == 1 and failed:
        return KILLED, failed[1]
    return (SURVIVED, "") if code == 0 else (BROKEN, text[-2000:])


def read(path: Path) -> dict[str, dict]:
    if not path.is_file():
        return {}
    return {entry["mutant"]: entry for entry in map(json.loads, path.read_text().splitlines())}


def run(results: Path, tree: Path, chosen: list[Mutant], timeout_s: int) -> None:
    """Run the mutants that `results` lacks, and append a line for each."""
    done = read(results)
    with tempfile.TemporaryDirectory() as place:
        copy = copied(tree, Path(place).resolve() / "tree")
        sources = modules(copy)
        where = subprocess.run(
            [sys.executable, "-c", f"import {PACKAGE}; print({PACKAGE}.__file__)"],
            cwd=copy, env={**os.environ, "PYTHONPATH": str(copy)}, check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip
        preload()
        assert Path(where.strip()).is_relative_to(copy), (
            f"the tests would import {where.strip()} and not the copy in {copy}"
        )
        for mutant in chosen:
            if mutant.name in done:
                continue
            started, path = time.monotonic(), None
            try:
                path, source = mutated(sources, mutant)
                tests = files(copy, mutant.tests)
            except ValueError as error:
                outcome, by = MISSING, str(error)
            else:
                path.write_text(source)
                shutil.rmtree(path.parent / "__pycache__", ignore_errors=True)
                outcome, by = run_tests(copy, tests, timeout_s)
                path.write_text(sources[path])
                shutil.rmtree(path.parent / "__pycache__", ignore_errors=True)
            entry = {
                "mutant": mutant.name,
                "result": outcome,
                "by": by,
                "module": str(path.relative_to(copy)) if path else "",
                "seconds": round(time.monotonic() - started, 1),
            }
            with open(results, "a") as file:
                file.write(json.dumps(entry) + "\n")
            print(
                f"{mutant.name:60} {outcome:9} {entry['seconds']:6.1f} s  {by.splitlines()[0] if by else ''}",
                flush=True,
            )


def table(results: dict[str, dict]) -> None:
    """Print a line for each group, and every mutant that was not killed."""
    groups = Counter((name.partition(".")[0], entry["result"]) for name, entry in results.items())
    outcomes = (KILLED, TIMEOUT, SURVIVED, BROKEN, MISSING)
    print(f"{'':14}" + "".join(f"{outcome:>10}" for outcome in outcomes))
    for group in dict.fromkeys(name for name, _ in groups):
        print(f"{group:14}" + "".join(f"{groups[group, outcome] or '':>10}" for outcome in outcomes))
    totals = Counter(entry["result"] for entry in results.values())
    print(f"{'all':14}" + "".join(f"{totals[outcome] or '':>10}" for outcome in outcomes))
    for name, entry in results.items():
        if entry["result"] not in (KILLED, TIMEOUT):
            print(f"{entry['result']:9} {name}  {entry['by'].splitlines()[0] if entry['by'] else ''}")


def compare(before: dict[str, dict], after: dict[str, dict]) -> int:
    """Print the totals and every mutant that was killed before and is not killed after; return 1 if there are any."""
    died = (KILLED, TIMEOUT)
    for title, results in (("before", before), ("after", after)):
        count = sum(entry["result"] in died for entry in results.values())
        print(f"{title}: {count} of {len(results)} mutants were killed")
    lost = [name for name, entry in before.items() if entry["result"] in died and name in MUTANT_NAMES]
    lost = [name for name in lost if after.get(name, {"result": "not run"})["result"] not in died]
    for name in lost:
        print(f"killed before, now {after.get(name, {'result': 'not run'})['result']}: {name}")
    for name, entry in before.items():
        if entry["result"] == SURVIVED and after.get(name, {}).get("result") in died:
            print(f"survived before, killed now: {name}")
    return 1 if lost else 0


MUTANT_NAMES = {mutant.name for mutant in MUTANTS}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", nargs="?", type=Path, help="file with a line of JSON for each mutant")
    parser.add_argument("--only", nargs="+", default=[""], help="prefixes of names")
    parser.add_argument("--tree", type=Path, default=ROOT, help="checkout to copy (default: this one)")
    parser.add_argument("--timeout", type=int, default=600, help="seconds of CPU for one mutant")
    parser.add_argument("--table", action="store_true", help="print the results and run nothing")
    parser.add_argument("--compare", nargs=2, type=Path, metavar=("BEFORE", "AFTER"))
    parser.add_argument("--places", action="store_true", help="check that every place is found")
    given = parser.parse_args()
    assert len(MUTANT_NAMES) == len(MUTANTS), "two mutants have one name"
    chosen = [mutant for mutant in MUTANTS if mutant.name.startswith(tuple(given.only))]
    if given.compare:
        return compare(*map(read, given.compare))
    if given.places:
        sources, missing = modules(given.tree), 0
        for mutant in chosen:
            try:
                mutated(sources, mutant)
                files(given.tree, mutant.tests)
            except ValueError as error:
                missing += 1
                print(error)
        print(f"found {len(chosen) - missing} of {len(chosen)} places")
        return 1 if missing else 0
    if given.results is None:
        parser.error("results.jsonl is missing")
    if not given.table:
        os.nice(5)
        os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported
        run(given.results, given.tree.resolve(), chosen, given.timeout)
    table(read(given.results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
