// Every limit of Assay, each with its reason. Units come last in the name.
#pragma once

#include <cstddef>
#include <cstdint>

namespace assay::limits {

// --- spec ---------------------------------------------------------------------------------------------------------
// A spec is written by a person or a small script; 1 MiB is ~20,000 lines and parses in well under a second.
inline constexpr size_t spec_bytes = 1 << 20;
// 10,000 queued runs is the scale the queue is measured at; one experiment may fill it.
inline constexpr int64_t runs_per_experiment = 10'000;
// Names become file names (255 bytes on Linux) with suffixes such as ".fail12" and ".steps.csv".
inline constexpr size_t name_chars = 128;
inline constexpr size_t path_chars = 4096;  // PATH_MAX
inline constexpr int repeats = 100;
inline constexpr int matrix_axes = 16;
inline constexpr int max_attempts = 100;
// A spec with more mistakes than this is not being fixed error by error.
inline constexpr size_t spec_errors_shown = 20;

// --- run ----------------------------------------------------------------------------------------------------------
inline constexpr int64_t steps_per_run = 1'000'000;  // the metric store charts a million-step run; see journal_bytes
inline constexpr int devices_per_run = 64;           // one host; beyond it is not this product's scale-out
inline constexpr int depth = 256;
inline constexpr int experts = 256;
inline constexpr int vocab_size = 65'536;  // tokens are stored as uint16
inline constexpr int sequence_len = 1 << 20;
inline constexpr int64_t batch_tokens = 1ll << 31;

// --- leases and supervision (QUEUE design: heartbeat 5 s, lease 30 s = six missed heartbeats) -----------------------
inline constexpr int64_t heartbeat_ms = 5'000;
inline constexpr int64_t lease_ms = 30'000;
// Alive but no progress. Load covers reading shards from slow disks; plan covers kernel selection and graph capture.
inline constexpr int64_t load_deadline_ms = 600'000;
inline constexpr int64_t plan_deadline_ms = 900'000;
inline constexpr int64_t step_deadline_ms = 600'000;
inline constexpr int64_t checkpoint_deadline_ms = 600'000;
// Stopping a trainer: SIGTERM, then SIGKILL to the whole process group after this long.
inline constexpr int64_t stop_grace_ms = 10'000;
// A worker that refused a lease is offered the run again after this long: its trouble may pass, and 0.2 offers a second
// cost nothing.
inline constexpr int64_t refused_backoff_ms = 5'000;
// A worker that ends at once is restarted with growing pauses, so a broken binary does not spin a core.
inline constexpr int64_t worker_restart_min_ms = 250;
inline constexpr int64_t worker_restart_max_ms = 30'000;
inline constexpr int64_t reconnect_min_ms = 100;
inline constexpr int64_t reconnect_max_ms = 2'000;

// --- journal, metrics, logs ----------------------------------------------------------------------------------------
// One record is at most 256 bytes, so a run of steps_per_run steps fits: 1e6 x 256 B = 244 MiB < 256 MiB.
inline constexpr size_t journal_record_bytes = 256;
inline constexpr size_t journal_bytes = 256u << 20;
// A result or lease record is its error text and log tail twice over at most, JSON-escaped: 6 x (8 + 4) kB x 2 < 1 MiB.
inline constexpr size_t attempt_file_bytes = 1u << 20;
// Step records per message from worker to daemon: 1,000 x ~100 B = 100 kB, far below the message limit, and one
// SQLite transaction a message keeps intake above 50,000 steps/s.
inline constexpr int steps_per_message = 1'000;
inline constexpr size_t log_bytes = 64u << 20;     // an attempt's log is cut here with a note; training goes on
inline constexpr size_t log_tail_bytes = 4'096;    // the last lines kept in the database with a failure
inline constexpr size_t log_chunk_bytes = 256u << 10;
inline constexpr size_t error_chars = 8'192;

// --- data and checkpoints --------------------------------------------------------------------------------------------
// The safetensors format's own bound on its JSON header: a larger length is a damaged or hostile file.
inline constexpr size_t safetensors_header_bytes = 100'000'000;

// --- services --------------------------------------------------------------------------------------------------------
// The largest messages are a spec (1 MiB), a report and a page of steps; 16 MiB leaves room and bounds memory.
inline constexpr int message_bytes = 16 << 20;
inline constexpr int rpc_deadline_ms = 30'000;
inline constexpr int watch_streams = 64;
inline constexpr int64_t request_id_keep_ms = 24ll * 3600 * 1000;

// --- database --------------------------------------------------------------------------------------------------------
inline constexpr int sqlite_busy_ms = 5'000;  // only assayd opens the files; a backup tool may hold a lock for a moment

// --- static execution ------------------------------------------------------------------------------------------------
inline constexpr int recompile_limit = 64;

}  // namespace assay::limits
