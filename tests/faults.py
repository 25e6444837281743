"""The thirty faults that a training must survive, the outcome of each, and the tests that show it.

`docs/RELIABILITY.md` holds the same table for readers; `tests/test_faults.py` keeps both true.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    Attributes:
        name: what happens.
        outcome: what then becomes of the run, in one sentence.
        tests: the tests that show it, as 'file::function' without `tests/test_` and `test_`.
        note: what is planted instead of happening, "" where it really happens.
    """

    name: str
    outcome: str
    tests: tuple[str, ...]
    note: str = ""

    @property
    def files(self) -> tuple[str, ...]:
        """Return the files of the tests, each once, in order."""
        return tuple(dict.fromkeys(test.partition("::")[0] for test in self.tests))


GPU = "simulated: no GPU is needed, the error that one gives is raised where it would come from"

FAULTS = {
    1: Fault(
        "kill -9 at a random moment",
        "the same command continues; at most one save interval is lost; every file is readable",
        (
            "fault_stops::killed_at_random_moments_the_same_command_ends_with_the_same_bits",
            "fault_stops::a_kill_loses_at_most_the_step_since_the_last_checkpoint",
            "chaos::the_short_version_keeps_every_promise",
        ),
    ),
    2: Fault(
        "kill -9 within a checkpoint write",
        "the old or the new checkpoint loads; what was left half is removed at the next start",
        (
            "fault_disk::killed_within_each_write_it_goes_on_and_tidies_up",
            "checkpoint_faults::a_kill_before_any_call_of_save_last_leaves_a_good_checkpoint",
            "checkpoint_faults::a_kill_before_any_call_of_save_best_leaves_a_matching_pair",
            "checkpoint_faults::kills_in_a_row_do_not_wear_a_run_down",
            "checkpoints::cleaning_takes_what_killed_programs_left_and_nothing_else",
        ),
    ),
    3: Fault(
        "SIGTERM, SIGINT or SIGUSR1 in any phase, also twice",
        "saved within the grace time, exit code 143 or 130, the next start continues; a "
        "second signal, more than a second later, ends at once and corrupts nothing",
        (
            "fault_stops::a_signal_in_any_phase_saves_and_the_same_command_continues",
            "fault_stops::a_second_signal_ends_at_once_and_corrupts_nothing",
            "fault_stops::a_signal_while_workers_hang_saves_and_the_same_command_continues",
            "fault_processes::a_signal_to_one_process_saves_and_ends_all",
            "session::a_real_signal_saves_and_exits",
            "session::a_signal_to_the_whole_group_saves_too",
        ),
    ),
    4: Fault(
        "stopped at any step and continued",
        "weights, optimiser, totals, best and metrics equal the undisturbed run bit by bit",
        (
            "fault_stops::stopped_at_every_step_it_ends_with_the_same_bits",
            "fault_stops::networks_of_pixels_are_continued_bit_by_bit_too",
            "session::interrupted_and_resumed_equals_uninterrupted",
            "engine::resume_equals_no_pause",
        ),
    ),
    5: Fault(
        "another number of loader workers, also after a stop",
        "the same batches, hence the same bits",
        (
            "fault_stops::the_number_of_workers_may_change_at_every_stop",
            "fault_stops::batches_are_equal_for_any_number_of_workers",
            "loading::batches_do_not_depend_on_the_number_of_workers",
        ),
    ),
    6: Fault(
        "one, two or four processes",
        "the same steps, loss to 1e-6, metrics of every data size exactly",
        (
            "fault_processes::processes_train_as_one_does",
            "fault_processes::tests_say_the_same_for_every_size_and_number_of_processes",
        ),
    ),
    7: Fault(
        "another number of processes after a stop",
        "the same order of clips, loss to 1e-6",
        ("fault_processes::a_run_goes_on_with_any_number_of_processes",),
    ),
    8: Fault(
        "one process dies, fails or hangs",
        "all end within the timeout with the first error shown; torchrun --max-restarts continues",
        (
            "fault_processes::one_that_ends_ends_the_others_and_the_run_goes_on",
            "fault_processes::one_that_hangs_is_not_waited_for_beyond_the_timeout",
            "fault_processes::torchrun_starts_again_by_itself_after_a_kill",
            "ranks::who_waits_for_one_that_failed_ends_with_its_code",
            "preprocess_faults::a_process_that_fails_ends_the_others",
        ),
    ),
    9: Fault(
        "the disk is full, at any write",
        "one line, exit code 2, earlier checkpoints intact, nothing half",
        (
            "fault_disk::a_disk_that_is_full_from_the_start_is_one_line",
            "fault_disk::a_disk_that_fills_later_leaves_every_checkpoint_as_it_was",
            "checkpoint_faults::a_refused_call_is_one_line_and_the_checkpoints_stay",
            "checkpoint_faults::a_limit_of_file_sizes_is_one_line",
            "files::a_full_disk_names_what_is_written",
            "preprocess_faults::a_full_disk_leaves_nothing_half",
            "cache_faults::a_disk_that_runs_full_ends_in_one_line",
            "extract::a_full_disk_stops_everything",
        ),
    ),
    10: Fault(
        "the output folder is missing, a file, read-only or not ours",
        "a missing one is made; else it is refused before training starts",
        (
            "fault_folders::a_place_that_cannot_be_written_is_refused_before_training",
            "fault_folders::a_place_without_rights_is_refused_before_training",
            "fault_folders::a_place_that_is_not_there_is_made",
            "fault_folders::a_disk_without_any_room_is_refused_before_training",
            "fault_folders::a_place_that_no_disk_has_is_refused_before_training",
        ),
    ),
    11: Fault(
        "a checkpoint that is cut, flipped, empty, of another model or of a newer version",
        "one line says what it is; continuing falls back to the one before, and says so",
        (
            "fault_disk::a_bad_newest_file_is_named_and_the_one_before_it_goes_on",
            "fault_disk::where_both_are_bad_nothing_is_guessed",
            "checkpoints::the_previous_one_takes_the_place_of_a_bad_last_loudly",
            "checkpoints::no_good_file_is_an_error_that_names_both_and_the_way_out",
            "checkpoint_faults::no_cut_and_no_flipped_bit_is_loaded_silently",
            "weights::a_newer_format_is_refused",
            "weights::a_checkpoint_of_another_model_is_named_and_nothing_is_loaded",
            "weights::damaged_files",
            "session::resume_refuses_what_is_not_this_run",
        ),
    ),
    12: Fault(
        "code in a checkpoint, in keypoints, annotations or scores",
        "nothing of it runs; exit code 2",
        (
            "hostile_files::no_reader_runs_a_hostile_file",
            "hostile_files::programs_refuse_hostile_models",
            "hostile_files::programs_refuse_hostile_scores_and_keypoints",
            "hostile_files::a_program_ends_with_2_and_one_line",
            "pickles::nothing_runs_and_the_file_is_named_in_one_line",
            "weights::code_in_a_checkpoint_is_not_run",
        ),
    ),
    13: Fault(
        "loss or gradient is not finite, on one process or all",
        "the step is not taken, its clips are written to nonfinite.jsonl; stop, or leave out "
        "as many as --skip_nonfinite allows",
        (
            "fault_numbers::a_step_that_is_not_finite_is_not_taken_and_its_clips_are_written_down",
            "fault_numbers::the_same_command_goes_on_from_before_the_bad_step",
            "fault_numbers::statistics_of_batch_norm_do_not_see_the_bad_step",
            "fault_numbers::as_many_steps_as_allowed_are_left_out",
            "fault_processes::one_that_ends_ends_the_others_and_the_run_goes_on",
            "steps::a_bad_step_changes_nothing_and_is_named",
        ),
    ),
    14: Fault(
        "weights that are not finite when the best model is kept",
        "the best model is never replaced by it",
        (
            "fault_numbers::the_best_is_never_a_model_that_is_not_finite",
            "checkpoints::a_model_that_is_not_finite_never_is_the_best",
        ),
    ),
    15: Fault(
        "keypoints that are no numbers, absent, outside, of score 0, of nobody, of three people",
        "refused by name or masked as documented, never NaN in a heatmap, counted in the report",
        (
            "fault_keypoints::heatmaps_are_finite_and_empty_where_nobody_is_seen",
            "fault_keypoints::of_three_people_the_first_is_the_athlete",
            "fault_keypoints::joints_that_nobody_saw_are_exact_zeros_for_pose_streams",
            "fault_keypoints::every_mode_trains_on_odd_keypoints_with_finite_numbers",
            "fault_keypoints::what_is_no_number_stops_before_training_and_is_named",
            "fault_keypoints::absent_keypoints_follow_the_policy_and_are_counted_at_the_end",
            "fault_keypoints::the_data_report_counts_what_is_odd",
            "importers::what_is_no_number_is_undetected_and_counted",
        ),
    ),
    16: Fault(
        "images that are cut, flipped, empty, HTML, CMYK, 16 bit, turned, 1x1 or 65,500 wide",
        "used as what they are or refused by name; --strict stops, else the clip is left out "
        "of the lists and counted; never zeros, never another clip",
        (
            "strict_images::odd_images_are_whole_and_have_the_size_that_training_sees",
            "strict_images::damaged_images_are_refused",
            "strict_images::jpegs_cut_anywhere_are_refused",
            "strict_images::flipped_bits_never_end_in_anything_but_a_picture_or_one_line",
            "frfs::a_broken_clip_is_left_out_named_and_counted",
            "frfs::strict_stops_before_any_list",
            "frfs::every_kind_of_broken_clip",
            "fault_videos::odd_pictures_train_as_the_plain_ones",
            "fault_videos::a_picture_that_cannot_be_used_stops_training_and_is_named",
            "manifest::a_flipped_bit_that_still_decodes_is_found",
        ),
    ),
    17: Fault(
        "an image that declares 30,000 x 30,000 pixels",
        "refused by its header, in less than 100 MB",
        (
            "strict_images::a_bomb_is_refused_by_its_header_in_little_memory",
            "strict_images::a_sparse_file_of_gigabytes_is_refused_unread",
            "videos::a_promise_of_gigabytes_is_refused_from_the_header",
        ),
    ),
    18: Fault(
        "videos without pictures or frames, cut, uneven, turned, of 8 hours, of 10 bits",
        "whole frames are used or one line says why not; in bounded time and memory",
        (
            "fault_videos::a_video_has_frames_or_one_clear_line_in_time",
            "fault_videos::a_folder_of_broken_videos_is_prepared_in_little_memory",
            "fault_videos::a_prediction_has_a_result_or_one_line_for_each_video",
            "fault_videos::a_video_that_is_damaged_after_its_preparation_stops_training_and_is_named",
            "videos::broken_videos_have_one_clear_line",
            "videos::a_cut_video_gives_its_whole_frames_and_says_where_it_ends",
            "videos::eight_hours_are_refused_at_once_and_read_when_wanted",
            "videos::frames_are_upright_as_shown",
            "videos::variable_frame_rate_is_noticed",
            "videos::every_part_of_a_video_equals_that_of_a_full_decode",
        ),
    ),
    19: Fault(
        "fewer frames than segments, one frame, none, gaps, counted from 0, another prefix",
        "sampled as documented, or one line names the folder and the first missing file",
        (
            "hostile_lists::fewer_frames_than_segments_repeat",
            "hostile_lists::numbers_from_0_or_1_give_the_same_batches",
            "hostile_lists::an_empty_folder_a_gap_and_a_wrong_prefix_are_named",
            "frames::a_gap_names_the_first_missing_frame",
            "fault_labels::a_line_that_cannot_be_is_named_before_training",
            "fault_labels::an_empty_list_is_named",
        ),
    ),
    20: Fault(
        "fuzzed lists, tables, sheets, JSON and arrays",
        "read, or refused in one line that says file and line; no traceback, no hang",
        (
            "fuzzed_inputs::wrong_files_are_read_or_refused_in_one_line",
            "hostile_lists::mutated_lists_and_tables_are_read_or_refused_in_one_line",
            "label_tables::mutated_tables_give_clips_or_one_line",
            "importers::mutated_files_are_read_or_refused",
            "score_files::every_flipped_byte_is_read_the_same_or_ends_in_one_line",
            "poses::a_damaged_archive_gives_finite_keypoints_or_one_line",
        ),
    ),
    21: Fault(
        "paths that lead out, links, NUL, 4,096 letters, devices, pipes",
        "refused; nothing outside of the data set is read, nothing is waited for",
        (
            "hostile_lists::a_path_that_leads_out_or_nowhere_is_refused",
            "hostile_lists::a_folder_that_is_a_link_out_is_refused",
            "hostile_lists::devices_named_as_frames_are_never_read",
            "hostile_lists::a_pipe_named_as_a_frame_never_hangs",
            "hostile_lists::a_list_that_is_no_file_never_hangs",
            "hostile_files::no_reader_waits_for_a_pipe_or_drains_a_device",
        ),
    ),
    22: Fault(
        "labels below 0, with gaps, no numbers, unknown; lists of one class or without one",
        "refused with file and line, or warned of once before the first epoch",
        (
            "fault_labels::a_label_that_is_no_class_is_refused_with_its_line",
            "fault_labels::a_list_of_one_class_is_warned_of_once_before_the_first_epoch",
            "fault_labels::a_class_without_training_clips_is_warned_of_once",
            "fault_labels::labels_of_a_list_are_compared_with_the_classes",
            "hostile_lists::a_wrong_label_is_named_with_its_line",
            "hostile_lists::a_gap_in_the_labels_of_an_own_data_set_is_refused",
            "hostile_lists::a_validation_label_that_training_lacks_is_refused",
            "frfs::label_attacks",
        ),
    ),
    23: Fault(
        "the same file, content or athlete in train and test",
        "refused unless --allow_overlap says otherwise",
        (
            "fault_labels::what_train_and_test_share_is_refused_unless_allowed",
            "fault_labels::the_same_file_in_train_and_test_is_refused_unless_allowed",
            "loading::what_clips_csv_knows_is_compared_too",
            "session::clips_that_were_trained_or_selected_on_are_no_test",
            "check_splits::equal_content_under_two_names_is_told",
        ),
    ),
    24: Fault(
        "out of memory on the device, in training and in evaluation",
        "half as many clips at once, the effective batch and the learning rate stay, or advice",
        (
            "fault_numbers::too_little_memory_halves_what_is_computed_at_once_and_says_so",
            "fault_numbers::too_little_memory_for_one_clip_is_advice",
            "fault_numbers::too_little_memory_in_evaluation_tries_smaller_parts",
        ),
        GPU,
    ),
    25: Fault(
        "a loader worker is killed, fails or hangs",
        "one line names the clip within 60 seconds",
        (
            "fault_workers::a_worker_that_is_killed_names_its_clip",
            "fault_workers::a_worker_that_hangs_names_its_clip",
            "fault_workers::by_default_a_worker_that_hangs_is_told_within_a_minute",
            "fault_workers::an_error_of_ours_in_a_worker_keeps_its_traceback_and_names_the_clip",
            "fault_workers::a_worker_killed_from_outside_is_one_line",
            "fault_workers::after_a_killed_worker_the_same_command_goes_on",
            "fault_workers::no_worker_outlives_a_killed_program",
            "watching::a_worker_that_is_killed_names_its_clip",
            "session::an_error_in_a_worker_is_one_line_too",
        ),
    ),
    26: Fault(
        "the clock jumps, a second run in the folder, the folder is deleted",
        "nothing changes; the second is refused; one line",
        (
            "fault_folders::a_clock_that_jumps_changes_nothing",
            "fault_folders::runs_are_continued_in_order_also_when_the_clock_was_set_back",
            "fault_folders::runs_that_begin_at_the_same_moment_get_folders_of_their_own",
            "fault_folders::a_second_run_in_the_same_folder_is_refused",
            "fault_folders::a_lock_of_a_killed_run_is_nobodys",
            "fault_folders::a_folder_that_goes_meanwhile_is_one_line",
            "checkpoints::a_second_program_is_told_who_is_there",
            "checkpoints::forked_processes_do_not_hold_the_lock",
        ),
    ),
    27: Fault(
        "killed or stopped while metrics.jsonl or TensorBoard is written",
        "no line twice or half after continuing, steps of TensorBoard in order",
        (
            "fault_logs::numbers_are_whole_and_in_order_whenever_it_is_stopped",
            "fault_logs::stopped_again_and_again_nothing_is_there_twice",
            "fault_logs::a_log_that_a_power_cut_damaged_does_not_keep_a_run_from_going_on",
        ),
    ),
    28: Fault(
        "no network, garbage of a proxy, a wrong hash, a download that breaks off",
        "all but downloads works; what came is deleted and one line says what was wrong with it",
        (
            "fault_downloads::training_and_testing_need_no_network",
            "fault_downloads::estimator_weights_come_whole_or_not_at_all",
            "fault_downloads::imagenet_weights_come_whole_or_not_at_all",
            "fault_downloads::a_server_that_never_answers_is_left",
            "fault_downloads::a_good_answer_is_taken",
            "hostile_files::nothing_reaches_the_network_unless_it_is_asked_to",
        ),
    ),
    29: Fault(
        "an exported model that does not say what the model says",
        "the export is refused and leaves nothing",
        (
            "export::a_file_that_says_something_else_is_not_left",
            "export::an_impossible_tolerance_is_not_reached",
            "deployment_onnx::rescore_counts_every_clip_and_sees_one_that_is_off",
            "deployment_onnx::nan_is_no_agreement",
        ),
    ),
    30: Fault(
        "locales, encodings, spaces, emoji, paths of more than 260 letters",
        "used as they are, or refused at the start",
        (
            "fault_names::a_line_can_be_printed_wherever_output_goes",
            "fault_names::odd_names_train_and_test_with_an_output_of_ascii",
            "fault_names::without_unicode_a_name_is_refused_before_anything_is_trained",
            "fault_names::a_run_folder_that_is_no_text_is_refused",
            "fault_names::paths_of_more_than_260_letters_are_fine",
            "fault_names::a_name_that_is_a_path_is_refused",
            "hostile_lists::odd_names_that_are_fine",
            "process_dataset_videos::odd_names_are_kept_or_made_safe",
            "records::blank_lines_windows_ends_and_a_byte_order_mark_are_fine",
        ),
    ),
}
