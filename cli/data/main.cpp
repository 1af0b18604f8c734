// assay-data: the command `assay data`. A program of its own because of what it links; it understands the command line
// of `assay` as far as data is concerned, with the same exit codes and the same way to report errors.
#include <fmt/core.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <iostream>
#include <nlohmann/json.hpp>

#include "base/output_file.h"
#include "base/version.h"
#include "cli/exit_code.h"
#include "cli/format.h"
#include "engine/data/prepare.h"

namespace assay {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* examples =
    "Also: --json (machine-readable output)\n\nExamples:\n"
    "  assay data prepare /usr/share/doc/linux-doc -o data/corpus --vocab-size 4096\n"
    "  assay data prepare more/*.txt -o data/more --tokenizer data/corpus/tokenizer.model";

int fail(bool json, ExitCode code, const char* kind, const std::string& message) {
  if (json)
    std::cerr << Json({{"error", {{"exit_code", static_cast<int>(code)}, {"kind", kind}, {"message", message}}}})
                     .dump(-1, ' ', false, Json::error_handler_t::replace)
              << "\n";
  else
    std::cerr << "assay: " << printable(message) << "\n";
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

int prepare(const PrepareOptions& options, bool json) {
  // Progress goes to the error stream, so that standard output holds the result alone.
  const auto progress = [](const std::string& line) { std::cerr << printable(line) << "\n" << std::flush; };
  const auto result = prepare_data(options, progress);
  if (!result.ok()) return fail(json, exit_code(result.error().code), "data", result.error().message);
  if (json) {
    const Json answer = {{"folder", options.output_folder},
                         {"documents", result->documents},
                         {"text_bytes", result->text_bytes},
                         {"train_tokens", result->train_tokens},
                         {"val_tokens", result->val_tokens},
                         {"vocab_size", result->vocab_size},
                         {"files", result->files}};
    std::cout << answer.dump(-1, ' ', false, Json::error_handler_t::replace) << "\n";
    return 0;
  }
  std::cout << fmt::format("{} ({}) -> {} training and {} validation tokens, vocabulary {}\n",
                           plural(result->documents, "document"), format_bytes(static_cast<double>(result->text_bytes)),
                           result->train_tokens, result->val_tokens, result->vocab_size);
  for (const std::string& file : result->files) std::cout << printable(file) << "\n";
  return 0;
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
    return fail(json, ExitCode::usage, "usage",
                fmt::format("data prepare: {}; see `assay data prepare --help`", error.what()));
  }
  return prepare(options, json);
}

}  // namespace assay

int main(int argc, char** argv) {
  return assay::checked_exit("assay", assay::run(argc, argv), static_cast<int>(assay::ExitCode::limits));
}
