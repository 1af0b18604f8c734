// `assay data prepare`: text files into a tokenizer and token shards. Needs no daemon.
#include <fmt/core.h>

#include "cli/format.h"
#include "cli/output.h"
#include "cli/verb.h"
#include "engine/data/prepare.h"

namespace assay {
namespace {

Result<ExitCode> run_prepare(Context& context, const PrepareOptions& options) {
  // Progress goes to the error stream, so that standard output holds the result alone.
  const auto progress = [&](const std::string& line) { context.console.err << printable(line) << "\n" << std::flush; };
  ASSAY_ASSIGN(const PrepareResult result, prepare_data(options, progress));
  if (context.json) {
    print_json(context, {{"folder", options.output_folder},
                         {"documents", result.documents},
                         {"text_bytes", result.text_bytes},
                         {"train_tokens", result.train_tokens},
                         {"val_tokens", result.val_tokens},
                         {"vocab_size", result.vocab_size},
                         {"files", result.files}});
    return ExitCode::ok;
  }
  std::ostream& out = context.console.out;
  out << fmt::format("{} ({}) -> {} training and {} validation tokens, vocabulary {}\n",
                     plural(result.documents, "document"), format_bytes(static_cast<double>(result.text_bytes)),
                     result.train_tokens, result.val_tokens, result.vocab_size);
  for (const std::string& file : result.files) out << printable(file) << "\n";
  return ExitCode::ok;
}

}  // namespace

void add_data(CLI::App& app, Context& context) {
  CLI::App* data = app.add_subcommand("data", "Work with training data");
  data->fallthrough();
  data->require_subcommand(1);
  CLI::App* verb = add_verb(*data, "prepare", "Turn text files into a tokenizer and token shards",
                            "  assay data prepare /usr/share/doc/linux-doc -o data/corpus --vocab-size 4096\n"
                            "  assay data prepare more/*.txt -o data/more --tokenizer data/corpus/tokenizer.model");
  auto options = std::make_shared<PrepareOptions>();
  verb->add_option("INPUT", options->inputs, "Text files, or folders searched for .txt, .rst and .md")->required();
  verb->add_option("-o,--output", options->output_folder, "Folder for tokenizer.model and the shards")
      ->type_name("FOLDER")
      ->required();
  verb->add_option("--vocab-size", options->vocab_size, "Tokens in the vocabulary")
      ->type_name("N")
      ->capture_default_str();
  verb->add_option("--name", options->name, "First part of the shards' names")
      ->type_name("NAME")
      ->capture_default_str();
  verb->add_option("--max-bytes", options->max_bytes, "Stop reading text after this many bytes (0 = all)")
      ->type_name("N")
      ->check(CLI::NonNegativeNumber);
  verb->add_option("--tokens-per-shard", options->tokens_per_shard, "Tokens in one shard")
      ->type_name("N")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  verb->add_option("--val-fraction", options->val_fraction, "Share of the documents kept for validation")
      ->type_name("F")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  verb->add_option("--tokenizer", options->tokenizer, "Use this SentencePiece model instead of training one")
      ->type_name("FILE");
  on_chosen(verb, context, options, run_prepare);
}

}  // namespace assay
