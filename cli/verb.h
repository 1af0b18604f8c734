// One function per verb, add_<verb>: adds its subcommand to the command line. Each lives in the file of the verb's name
// (release: in that of hold).
#pragma once

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <string>

#include "cli/context.h"

namespace assay {

// In the order of `assay --help`.
#define ASSAY_VERBS(X) \
  X(up)                \
  X(down)              \
  X(plan)              \
  X(enqueue)           \
  X(ls)                \
  X(watch)             \
  X(show)              \
  X(logs)              \
  X(retry)             \
  X(cancel)            \
  X(hold)              \
  X(release)           \
  X(wait)              \
  X(report)            \
  X(export)            \
  X(devices)           \
  X(doctor)            \
  X(data)
#define ASSAY_DECLARE_VERB_(verb) void add_##verb(CLI::App&, Context&);
ASSAY_VERBS(ASSAY_DECLARE_VERB_)
#undef ASSAY_DECLARE_VERB_

// A subcommand whose help ends with `examples` (lines as one would type them).
CLI::App* add_verb(CLI::App& app, const std::string& name, const std::string& what, const std::string& examples);

// An option that names something (a tag, a file): an empty text, such as a shell variable that is not set, is a mistake
// and never means the same as leaving the option out.
CLI::Option* add_name(CLI::App* verb, const std::string& option, std::string& name, const std::string& type,
                      const std::string& what);

// When `verb` is chosen, run `body(context, options)` after parsing. `Options` lives as long as the verb.
template <class Options, class Body>
void on_chosen(CLI::App* verb, Context& context, std::shared_ptr<Options> options, Body body) {
  verb->final_callback(
      [&context, options, body] { context.action = [&context, options, body] { return body(context, *options); }; });
}

}  // namespace assay
