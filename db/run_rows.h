// Reading the rows of queue.db into the structs of db/types.h and db/run_reads.h. Private to db/.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"
#include "db/run_reads.h"
#include "db/sqlite.h"
#include "db/types.h"

namespace assay {

// Column lists to SELECT, and readers of those columns starting at column `at`. `at` moves past what was read.
// Aliases: runs r, attempts a, experiments e.
inline constexpr std::string_view run_columns =
    "r.id, r.experiment_id, r.name, r.cell_key, r.repeat, r.seed, r.state, r.priority, r.devices, r.backend, "
    "r.not_before, r.cancel_requested, r.attempts, r.lost_attempts, r.stopped_attempts, r.created_at, "
    "r.finished_at, r.total_steps";
inline constexpr std::string_view attempt_columns =
    "a.id, a.run_id, a.n, a.lease_epoch, a.worker_id, a.state, a.phase, a.stop_reason, a.result, a.reason, a.step, "
    "a.exit_code, "
    "a.signal, a.peak_mem_mib, a.created_at, a.started_at, a.finished_at, a.resumed_from_step, a.log_path, "
    "a.operation, a.tensor, a.error";  // then a.log_tail where wanted
inline constexpr std::string_view experiment_columns =
    "e.id, e.name, e.tag, e.spec_hash, e.baseline, e.on_failure, e.max_attempts, e.retry_on, e.backoff_s, "
    "e.created_at";  // then e.spec_text where wanted

// "r.state IN ('running', 'paused')": letter for letter the condition of the stage's partial index (db/schema.sql).
std::string in_stage(RunStage stage);

// A word that the enum does not know is data_loss: the constraints keep it out of a sound file. `where` is its column.
Error damaged_word(std::string_view where, const Error& why);
template <WordEnum E>
Result<E> read_word(const Statement& row, int column, std::string_view where) {
  auto word = parse_word<E>(row.text(column));
  if (!word.ok()) return damaged_word(where, word.error());
  return word;
}

Result<RunRow> read_run(const Statement& row, int& at);
Result<AttemptRow> read_attempt(const Statement& row, int& at, const std::string& home);  // paths as they are now
Result<ExperimentRow> read_experiment(const Statement& row, int& at);
// Columns "e.name, e.tag, <run_columns>, <attempt_columns>"; those of the attempt are NULL where there is none.
Result<ListedRun> read_listed_run(const Statement& row, int& at, const std::string& home);

// All rows of `sql`: a counter's name, and the greatest number it has given out.
Result<QueueMark> read_mark(Database& db, std::string_view sql);

// "out_of_memory,crashed", as in column experiments.retry_on.
std::string join_reasons(const RetryPolicy& retry);

}  // namespace assay
