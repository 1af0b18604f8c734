#include "cli/program.h"

#include <fmt/core.h>

#include <memory>

#include "base/home.h"
#include "base/output_file.h"
#include "base/version.h"
#include "cli/error_line.h"
#include "cli/format.h"
#include "cli/output.h"
#include "cli/verb.h"

namespace assay {
namespace {

constexpr const char* description =
    "Assay: an experiment queue for mixture-of-experts training, with the engine built in.\n\n"
    "  assay up                       start the daemon\n"
    "  assay enqueue ablation.toml    queue every run of a spec\n"
    "  assay watch                    see them run\n"
    "  assay retry --failed           give failed runs another attempt\n"
    "  assay report                   write the report\n";

constexpr const char* footer =
    "Exit codes: 0 ok, 1 the answer is no (a run or a check failed), 2 usage, 3 invalid spec or input, 4 not found,\n"
    "5 daemon not running, 6 refused by state, 7 limits or resources, 8 internal, 9 permission, 10 time is over.\n"
    "`assay VERB --help` shows the options of a verb and examples.";

void add_verbs(CLI::App& app, Context& context) {
#define ASSAY_ADD_VERB_(verb) add_##verb(app, context);
  ASSAY_VERBS(ASSAY_ADD_VERB_)
#undef ASSAY_ADD_VERB_
}

// "verb --option: what" for a person, {"error": ...} for a program. One line, unless a spec has several errors.
ExitCode fail(Context& context, ExitCode code, const std::string& message) {
  context.console.err << error_lines(context.json, code, message);
  return code;
}

ExitCode fail(Context& context, const Error& error) {
  return fail(context, exit_code(error.code), error.message);
}

// `code`, unless what was printed did not arrive.
ExitCode written(Context& context, ExitCode code) {
  const Status arrived = check_written(context.console.out, "standard output");
  return arrived.ok() ? code : fail(context, arrived.error());
}

// What a wrong command line is told: CLI11's sentence, or the nearest verb for a word that is none.
std::string usage_message(const CLI::App& app, const CLI::ParseError& error,
                          const std::vector<std::string>& arguments) {
  if (app.get_subcommands().empty()) {
    for (size_t i = 0; i < arguments.size(); ++i) {
      const std::string& word = arguments[i];
      i += word == "--home";  // its folder is no verb
      if (word.empty() || word.front() == '-') continue;
      const auto near = nearest_verb(app, word);
      if (!near) return fmt::format("there is no verb '{}'; `assay --help` lists them", printable(word));
      return fmt::format("there is no verb '{}'; did you mean '{}'?", printable(word), *near);
    }
    if (error.get_name() == "RequiredError") return "no verb given; `assay --help` lists them";
  }
  std::string text = printable(error.what());
  for (const CLI::App* verb : app.get_subcommands())
    return fmt::format("{}: {}; see `assay {} --help`", verb->get_name(), text, verb->get_name());
  return text;
}

}  // namespace

CLI::App* add_verb(CLI::App& app, const std::string& name, const std::string& what, const std::string& examples) {
  CLI::App* verb = app.add_subcommand(name, what);
  verb->fallthrough();  // --json and --home are understood on either side of the verb
  verb->footer("Also: --json (machine-readable output), --home FOLDER (state folder)\n\nExamples:\n" + examples);
  return verb;
}

CLI::Option* add_name(CLI::App* verb, const std::string& option, std::string& name, const std::string& type,
                      const std::string& what) {
  const auto not_empty = [](const std::string& text) {
    return std::string(text.empty() ? "is empty; leave it out or say what is meant" : "");
  };
  return verb->add_option(option, name, what)->type_name(type)->check(CLI::Validator(not_empty, ""));
}

ExitCode run_program(const std::vector<std::string>& arguments, Context& context) {
  context.arguments = arguments;
  CLI::App app(description, "assay");
  app.footer(footer);
  app.require_subcommand(1);
  app.set_version_flag("-V,--version", std::string("assay ") + version());
  app.add_flag("--json", context.json, "Print JSON with the fields documented in docs/cli.md");
  std::string home;
  app.add_option("--home", home, home_help)->type_name("FOLDER");
  add_verbs(app, context);
  try {
    app.parse(std::vector<std::string>(arguments.rbegin(), arguments.rend()));  // CLI11 takes them last first
  } catch (const CLI::Success& help) {
    app.exit(help, context.console.out, context.console.err);
    return written(context, ExitCode::ok);
  } catch (const CLI::ParseError& error) {
    return fail(context, ExitCode::usage, usage_message(app, error, arguments));
  }
  auto folder = home_folder(home);
  if (!folder.ok()) return fail(context, ExitCode::usage, folder.error().message);
  context.home = *folder;
  auto result = context.action();
  if (!result.ok()) return fail(context, result.error());
  return written(context, *result);
}

}  // namespace assay
