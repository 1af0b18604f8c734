// assay-data: the command `assay data`. A program of its own because of what it links; it understands the command line
// of `assay` as far as data is concerned, with the same exit codes and the same way to report errors.
#include <fmt/core.h>
#include <unistd.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <cerrno>
#include <csignal>
#include <iostream>
#include <nlohmann/json.hpp>

#include "base/output_file.h"
#include "base/process.h"
#include "base/text.h"
#include "base/version.h"
#include "cli/error_line.h"
#include "cli/exit_code.h"
#include "cli/format.h"
#include "engine/data/prepare.h"
#include "engine/data/staging.h"

namespace assay {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* examples =
    "Also: --json (machine-readable output)\n\nExamples:\n"
    "  assay data prepare /usr/share/doc/linux-doc -o data/corpus --vocab-size 4096\n"
    "  assay data prepare more/*.txt -o data/more --tokenizer data/corpus/tokenizer.model";

// To a descriptor, whatever becomes of std::cerr.
void say(int fd, const std::string& text) {
  for (size_t done = 0; done < text.size();) {
    const ssize_t n = ::write(fd, text.data() + done, text.size() - done);
    if (n < 0 && errno != EINTR) return;  // nobody can be told
    done += static_cast<size_t>(std::max<ssize_t>(n, 0));
  }
}

int fail(int fd, bool json, ExitCode code, const std::string& message) {
  say(fd, error_lines(json, code, message));
  return static_cast<int>(code);
}

void add_prepare(CLI::App& verb, PrepareOptions& options) {
  verb.add_option("INPUT", options.inputs, "Text files, or folders searched for .txt, .rst and .md")->required();
  verb.add_option("-o,--output", options.output_folder, "Folder for tokenizer.model and the shards")
      ->type_name("FOLDER")
      ->required();
  verb.add_option("--vocab-size", options.vocab_size, "Tokens in the vocabulary")
      ->type_name("N")
      ->capture_default_str();
  verb.add_option("--name", options.name, "First part of the shards' names")->type_name("NAME")->capture_default_str();
  verb.add_option("--max-bytes", options.max_bytes, "Stop reading text after this many bytes (0 = all)")
      ->type_name("N");
  verb.add_option("--tokens-per-shard", options.tokens_per_shard, "Tokens in one shard")
      ->type_name("N")
      ->capture_default_str();
  verb.add_option("--val-fraction", options.val_fraction, "Share of the documents kept for validation")
      ->type_name("F")
      ->capture_default_str();
  verb.add_option("--tokenizer", options.tokenizer, "Use this SentencePiece model instead of training one")
      ->type_name("FILE");
  verb.footer(examples);
}

void print(std::ostream& out, const PrepareOptions& options, const PrepareResult& result, bool json) {
  if (json) {
    Json answer = {{"folder", options.output_folder}};  // then what corpus.json says, with absolute paths
    answer.update(Json::parse(result.corpus_json));
    answer["files"] = result.files;
    out << answer.dump(-1, ' ', false, Json::error_handler_t::replace) << "\n";
    return;
  }
  out << fmt::format("{} ({}) -> {} training and {} validation tokens, vocabulary {}\n",
                     plural(result.documents, "document"), format_bytes(static_cast<double>(result.text_bytes)),
                     result.train_tokens, result.val_tokens, result.vocab_size);
  for (const std::string& file : result.files) out << printable(file) << "\n";
}

// Progress goes to the error stream, so that standard output holds the result alone.
int prepare(const PrepareOptions& options, bool json, int terminal) {
  const auto result = prepare_data(options, [&](const std::string& line) { say(terminal, printable(line) + "\n"); });
  if (!result.ok()) return fail(terminal, json, exit_code(result.error().code), result.error().message);
  FdStream out(STDOUT_FILENO);
  print(out, options, *result, json);
  const Status written = check_written(out, "standard output");
  if (written.ok()) return 0;
  return fail(terminal, json, ExitCode::limits,
              fmt::format("{}; the corpus itself is whole in {}", written.error().message, options.output_folder));
}

// SentencePiece ends its process on what it did not expect, from inside any call. So all work is done in a fork, and
// its death is an error like any other.
int prepare_guarded(const PrepareOptions& options, bool json) {
  const auto end = run_in_fork([&](int terminal) { return prepare(options, json, terminal); });
  if (!end.ok()) return fail(STDERR_FILENO, json, exit_code(end.error().code), end.error().message);
  const ExitStatus& status = end->status;
  if (status.signal == 0 && status.exit_code <= static_cast<int>(ExitCode::timed_out)) return status.exit_code;
  // Takes over what the fork has left in <folder>.preparing, and removes it.
  { const auto leftover = StagingFolder::create(options.output_folder); }
  for (const int asked_to_end : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE})
    if (status.signal == asked_to_end) {
      std::signal(asked_to_end, SIG_DFL);
      std::raise(asked_to_end);
    }
  std::string why = "was killed, as the system does when memory runs out; nothing was written";
  if (status.signal != SIGKILL)
    why = fmt::format(
        "{}; nothing was written. Most likely SentencePiece cannot work with this text or tokenizer: leave "
        "out parts of the text to find which{}{}",
        how_it_ended(status), end->last_words.empty() ? "" : "; its last words: ", end->last_words);
  return fail(STDERR_FILENO, json, ExitCode::internal, "data prepare " + why);
}

// What a wrong command line is told: the nearest verb for a word that is none, else CLI11's sentence.
std::string usage_message(const CLI::App& data, const CLI::ParseError& error, int argc, char** argv) {
  if (!data.get_subcommands().empty())
    return fmt::format("data prepare: {}; see `assay data prepare --help`", error.what());
  const std::vector<std::string> words(argv + 1, argv + argc);
  auto word = std::find(words.begin(), words.end(), "data");
  if (word != words.end())
    word = std::find_if(word + 1, words.end(), [](const auto& w) { return !w.starts_with("-"); });
  if (word == words.end()) return "data: no verb given; see `assay data --help`";
  const auto near = nearest_verb(data, *word);
  return fmt::format("there is no verb 'data {}'; {}", *word,
                     near ? fmt::format("did you mean 'data {}'?", *near) : "`assay data --help` lists them");
}

}  // namespace

int run(int argc, char** argv) {
  CLI::App app("Prepare training data", "assay");
  app.require_subcommand(1);
  app.set_version_flag("-V,--version", std::string("assay ") + version());
  bool json = false;
  std::string home;
  app.add_flag("--json", json, "Print JSON with the fields documented in docs/cli.md");
  app.add_option("--home", home, "Not used here: data needs no daemon")->type_name("FOLDER");
  CLI::App* data = app.add_subcommand("data", "Prepare training data");
  data->fallthrough()->require_subcommand(1);
  CLI::App* verb = data->add_subcommand("prepare", "Turn text files into a tokenizer and token shards");
  verb->fallthrough();
  PrepareOptions options;
  add_prepare(*verb, options);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& help) {
    return app.exit(help);
  } catch (const CLI::ParseError& error) {
    return fail(STDERR_FILENO, json, ExitCode::usage, usage_message(*data, error, argc, argv));
  }
  return prepare_guarded(options, json);
}

}  // namespace assay

int main(int argc, char** argv) {
  return assay::checked_exit("assay", assay::run(argc, argv), static_cast<int>(assay::ExitCode::limits));
}
