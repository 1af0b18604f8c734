// `assay doctor`: what works on this machine and what is missing.
#include <fmt/core.h>

#include "cli/doctor_checks.h"
#include "cli/format.h"
#include "cli/output.h"
#include "cli/table.h"
#include "cli/verb.h"

namespace assay {
namespace {

struct Options {};

const char* word(Health health) {
  return health == Health::ok ? "ok" : health == Health::warn ? "warn" : "fail";
}
Colour colour_of(Health health) {
  return health == Health::ok ? Colour::green : health == Health::warn ? Colour::yellow : Colour::red;
}

std::vector<Check> all_checks(const Context& context) {
  std::vector<Check> checks = {check_programs(context.programs), check_home(context.home)};
  for (Check& check : check_daemon(context.home)) checks.push_back(std::move(check));
  checks.push_back(check_machine());
  for (Check& check : check_gpus(list_gpus(), find_gpu_needs())) checks.push_back(std::move(check));
  checks.push_back(check_data_tools(context.programs));
  return checks;
}

Result<ExitCode> run_doctor(Context& context, const Options&) {
  const std::vector<Check> checks = all_checks(context);
  bool failed = false;
  Json list = Json::array();
  for (const Check& check : checks) {
    failed = failed || check.health == Health::fail;
    if (context.json) {
      list.push_back(
          {{"name", check.name}, {"health", word(check.health)}, {"found", check.found}, {"advice", check.advice}});
      continue;
    }
    const std::string health = fmt::format("{:<4}", word(check.health));
    context.console.out << paint(health, colour_of(check.health), context.console.colour)
                        << fmt::format("  {:<10}  {}\n", check.name, printable(check.found));
    if (!check.advice.empty()) context.console.out << fmt::format("{:18}-> {}\n", "", printable(check.advice));
  }
  if (context.json) print_json(context, {{"healthy", !failed}, {"checks", list}});
  return failed ? ExitCode::negative : ExitCode::ok;
}

}  // namespace

void add_doctor(CLI::App& app, Context& context) {
  CLI::App* verb = add_verb(app, "doctor", "Check this machine; exit code 1 if something must be mended",
                            "  assay doctor\n"
                            "  assay doctor --json | jq '.checks[] | select(.health != \"ok\")'");
  on_chosen(verb, context, std::make_shared<Options>(), run_doctor);
}

}  // namespace assay
