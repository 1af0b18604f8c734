// Every limit of Assay, each with its reason; what a backend takes is in spec/backend_limits.h. Units come last in
// the name.
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
// A derived run name leaves this much of name_chars to "_repeat100", so that it does not depend on how many repeats a
// spec asks for today.
inline constexpr size_t repeat_suffix_chars = 10;
inline constexpr size_t path_chars = 4096;  // PATH_MAX
inline constexpr int repeats = 100;
inline constexpr int matrix_axes = 16;
inline constexpr int max_attempts = 100;
// Each exclude is compared with every cell: 1,000 x 10,000 comparisons take well under a second.
inline constexpr size_t excludes = 1'000;
inline constexpr int64_t priority = 1'000;  // -1000..1000: more ranks than anybody tells apart
inline constexpr int64_t backoff_s = 7 * 24 * 3600;
// The deepest key of a spec has 3 parts. The TOML library recurses once per part, so a hostile key would use up the
// stack.
inline constexpr int toml_key_parts = 32;
// A spec with more mistakes than this is not being fixed error by error.
inline constexpr size_t spec_errors_shown = 20;

// --- run ----------------------------------------------------------------------------------------------------------
inline constexpr int64_t steps_per_run = 1'000'000;  // the metric store charts a million-step run; see journal_bytes
inline constexpr int devices_per_run = 64;           // one host; beyond it is not this product's scale-out
inline constexpr int depth = 256;
inline constexpr int d_model = 1 << 16;
inline constexpr int experts = 256;
inline constexpr int64_t seed = 1ll << 53;  // JSON readers keep integers exactly up to here
inline constexpr int64_t timeout_s = 365ll * 24 * 3600;
inline constexpr int vocab_size = 65'536;  // tokens are stored as uint16
inline constexpr int sequence_len = 1 << 20;
inline constexpr int64_t batch_tokens = 1ll << 31;

// --- leases and supervision (heartbeat 5 s, lease 30 s = six missed heartbeats) --------------------------------------
inline constexpr int64_t heartbeat_ms = 5'000;
inline constexpr int64_t lease_ms = 30'000;
// Alive but no progress. Load covers reading shards from slow disks, and kernel selection.
inline constexpr int64_t load_deadline_ms = 600'000;
inline constexpr int64_t step_deadline_ms = 600'000;
inline constexpr int64_t checkpoint_deadline_ms = 600'000;
// Stopping a trainer: SIGTERM, then SIGKILL to the whole process group after this long.
inline constexpr int64_t stop_grace_ms = 10'000;
// A worker that refused a lease (no trainer program, a full disk) gets none for this long, then for twice as long, and
// so on: its trouble may pass, and until then the feed must not fill with refusals (300 a day at most).
inline constexpr int64_t refused_pause_min_ms = 5'000;
inline constexpr int64_t refused_pause_max_ms = 300'000;
// A worker that ends at once is restarted with growing pauses, so a broken binary does not spin a core.
inline constexpr int64_t worker_restart_min_ms = 250;
inline constexpr int64_t worker_restart_max_ms = 30'000;
inline constexpr int64_t reconnect_min_ms = 100;
inline constexpr int64_t reconnect_max_ms = 2'000;
// While a run is live the worker looks at its journal, log and deadlines this often: metrics are at most 0.1 s late,
// and ten looks a second cost well under 0.5 % of a core. Without a live run nothing is polled.
inline constexpr int64_t live_poll_ms = 100;
// Trainers that have just ended may still be named by the driver as users of their GPUs; so many are remembered as the
// worker's own. More than a host has GPUs.
inline constexpr size_t former_trainers = 64;
// A worker that is stopped waits this long for the daemon to acknowledge how its runs ended; what was not is on disk.
inline constexpr int64_t farewell_ms = 2'000;

// --- journal, metrics, logs ----------------------------------------------------------------------------------------
// One record is at most 256 bytes (30 fields), so a run of steps_per_run steps fits: 1e6 x 256 B = 244 MiB < 256 MiB.
inline constexpr size_t journal_record_bytes = 256;
inline constexpr size_t journal_bytes = 256u << 20;
// The names of the fields before the first record: one page, and more names than a record has room for.
inline constexpr size_t journal_header_bytes = 4'096;
// A result or lease record is its error text and log tail twice over at most, JSON-escaped: 6 x (8 + 4) kB x 2 < 1 MiB.
inline constexpr size_t attempt_file_bytes = 1u << 20;
// Step records per message from worker to daemon: 1,000 x ~120 B = 120 kB, far below the message limit, and one
// SQLite transaction a message keeps intake above 50,000 steps/s.
inline constexpr int steps_per_message = 1'000;
// Sent and not yet acknowledged, per attempt: enough to keep the daemon busy, little enough that a slow one does not
// make the worker hold more than 8 x 120 kB a run in memory. The journal holds the rest.
inline constexpr int64_t unacked_steps = 8 * steps_per_message;
inline constexpr size_t log_bytes = 64u << 20;       // an attempt's log is cut here with a note; training goes on
inline constexpr size_t log_slack_bytes = 1u << 20;  // a log is cut when it is this much too long, so not at every line
inline constexpr size_t log_tail_bytes = 4'096;      // the last lines kept in the database with a failure
inline constexpr size_t log_chunk_bytes = 256u << 10;
inline constexpr size_t error_chars = 8'192;
// log::warn_once remembers this many texts and writes no others: many times what a sane peer gives reason for.
inline constexpr size_t texts_logged_once = 256;

// --- data and checkpoints --------------------------------------------------------------------------------------------
// A larger text file is cut into documents of this size: it bounds memory (a batch of them is held at once) and lets a
// corpus of one big file be encoded by all cores and have a validation part.
inline constexpr size_t document_bytes = 1u << 20;
// SentencePiece's BPE takes 4 s of CPU on 6 MB at 4,096 pieces and 15 to 35 s on 10 MB at 32,768; more text hardly
// changes the pieces.
inline constexpr size_t tokenizer_sample_bytes = 10u << 20;
// SentencePiece keeps a position within a word in 16 bits, with their sign: a word of 32,769 characters crashes it. So
// lines are cut for training; no word that is worth a token is near this long.
inline constexpr size_t tokenizer_line_bytes = 16u << 10;
// Words as long as that are mostly not of a language (base64, dumps), and text in which nothing comes again trains a
// hundred times as long as a language: 55 s of CPU for 1 MB of base64 at 4,000 pieces. A sample has at most this much.
inline constexpr size_t tokenizer_long_word_bytes = 1u << 20;
// Files that did not go into a corpus are named one by one on the terminal up to this many; corpus.json names all.
inline constexpr size_t skipped_files_shown = 20;
// What a shard is recognised by when a run resumes: 256 KiB of it, so a shard of 131,072 tokens whole, and 3,000 shards
// in two or three seconds.
inline constexpr size_t fingerprint_blocks = 16;
inline constexpr size_t fingerprint_block_bytes = 16u << 10;
// A corpus of up to this many bytes of tokens is looked at whole before a run is queued or started (20 ms from the page
// cache, half a second from a disk); of a larger one the first tokens of every shard.
inline constexpr size_t scanned_corpus_bytes = 64u << 20;
// corpus.json is a few hundred bytes and a line for each file.
inline constexpr size_t corpus_manifest_bytes = 16u << 20;
// The safetensors format's own bound on its JSON header: a larger length is a damaged or hostile file.
inline constexpr size_t safetensors_header_bytes = 100'000'000;
// A manifest is three file entries, a few scalars and ~80 bytes a shard of the corpus, of which Linux maps at most
// 65,530 (vm.max_map_count): 5 MB, and less than this with the longest file names.
inline constexpr size_t checkpoint_manifest_bytes = 32u << 20;

// --- services --------------------------------------------------------------------------------------------------------
// The largest messages are a spec (1 MiB), a report and a page of steps; 16 MiB leaves room and bounds memory.
inline constexpr int message_bytes = 16 << 20;
// A list of runs is sent in messages of about this size: any number of runs, and little memory for each message.
inline constexpr size_t list_message_bytes = 1u << 20;
// What a change answers (a line for every run it was about) is one message, with room for the fields around it. At 140
// bytes a line these are 119,000 runs; a change of more is refused before it is made.
inline constexpr size_t change_answer_bytes = static_cast<size_t>(message_bytes) - (64u << 10);
// A mistyped run name is compared with this many names, the newest first: some 50 ms.
inline constexpr int64_t names_compared = 10'000;
inline constexpr int rpc_deadline_ms = 30'000;
inline constexpr int watch_streams = 64;
inline constexpr int64_t request_id_keep_ms = 24ll * 3600 * 1000;

// --- database --------------------------------------------------------------------------------------------------------
inline constexpr int sqlite_busy_ms = 5'000;  // only assayd opens the files; a backup tool may hold a lock for a moment
// Page cache of each of the two databases: the live rows of 10,000 queued runs (~3 MB) fit, and the idle daemon stays
// small.
inline constexpr int64_t sqlite_cache_bytes = 8 << 20;
// The write-ahead log is copied back every 4,000 pages (16 MB): one pair of fsyncs per ~100,000 steps of metrics.
inline constexpr int sqlite_wal_pages = 4'000;
inline constexpr int64_t sqlite_wal_kept_bytes = 64ll << 20;  // a log grown by one huge transaction is cut back to this

// --- output layer ----------------------------------------------------------------------------------------------------
// Logits exist for this many tokens at a time: 8,192 x 32,768 x 2 B = 512 MiB. Every chunk adds the whole gradient of
// the output layer to memory, so fewer chunks cost less; of 8,192 rows, GEMMs fill the GPU's last wave.
inline constexpr int64_t logits_chunk_rows = 8'192;

// --- optimizer -------------------------------------------------------------------------------------------------------
// Muon orthogonalises this much at a time on the GPU. A matrix of 1,024 x 768 takes 5.3 MiB in BF16 (two copies of it,
// its Gram matrix, a polynomial of that), so 1 GiB holds 194 of them: 2,300 tiles, 17 for each multiprocessor.
inline constexpr size_t muon_workspace_bytes = 1ull << 30;
// The block of scratch memory that all CUDA ops of a run share: Muon's, and what they need that work beside it (split
// sums of the weight gradients, sorting, carried sums), which is far less.
inline constexpr size_t cuda_workspace_bytes = muon_workspace_bytes + (256u << 20);

// --- memory of a device that runs cannot have ------------------------------------------------------------------------
// Of a GPU: CUDA's context, the kernels' code and cuDNN's.
inline constexpr int64_t cuda_reserve_bytes = 1ll << 30;
// Of a host: its system and the daemon, at least this much.
inline constexpr int64_t host_reserve_bytes = 512ll << 20;

// --- devices ---------------------------------------------------------------------------------------------------------
inline constexpr int oldest_nvidia_driver = 580;  // the first that runs CUDA 13.0
inline constexpr int oldest_cudnn = 91000;        // 9.10: sliding windows with a deterministic backward on Hopper

// --- static execution ------------------------------------------------------------------------------------------------
inline constexpr int recompile_limit = 64;

}  // namespace assay::limits
