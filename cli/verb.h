// One function per verb: adds its subcommand to the command line. Each lives in the file of the verb's name.
#pragma once

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <string>

#include "cli/context.h"

namespace assay {

void add_up(CLI::App&, Context&);
void add_down(CLI::App&, Context&);
void add_plan(CLI::App&, Context&);
void add_enqueue(CLI::App&, Context&);
void add_ls(CLI::App&, Context&);
void add_watch(CLI::App&, Context&);
void add_show(CLI::App&, Context&);
void add_logs(CLI::App&, Context&);
void add_retry(CLI::App&, Context&);
void add_cancel(CLI::App&, Context&);
void add_hold(CLI::App&, Context&);
void add_release(CLI::App&, Context&);
void add_wait(CLI::App&, Context&);
void add_report(CLI::App&, Context&);
void add_export(CLI::App&, Context&);
void add_devices(CLI::App&, Context&);
void add_doctor(CLI::App&, Context&);
void add_data(CLI::App&, Context&);

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
