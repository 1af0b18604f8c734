#include "cli/change.h"

#include "base/text.h"
#include "cli/format.h"
#include "cli/output.h"

namespace assay {

void add_tag(CLI::App* verb, std::string& tag, const std::string& what) {
  add_name(verb, "--tag", tag, "TAG", what + ": \"tag\", or \"experiment/tag\" where several have it");
}

void add_selection(CLI::App* verb, Selection& selection, const std::string& what) {
  verb->add_option("RUN", selection.names, what + ": " + run_name_help);
  add_tag(verb, selection.tag, "Only runs of this experiment");
}

v1::RunSelector to_selector(const Selection& selection) {
  v1::RunSelector selector;
  for (const std::string& name : selection.names) selector.add_names(name);
  selector.set_tag(selection.tag);
  return selector;
}

ExitCode print_change(Context& context, const std::string& done, const v1::ChangeResponse& answer) {
  if (context.json) {
    print_json(context, to_json(answer));
  } else {
    std::ostream& out = context.console.out;
    if (answer.changed_size() > 0 || answer.unchanged_size() == 0)
      out << done << " " << plural(answer.changed_size(), "run") << "\n";
    for (const std::string& name : answer.changed()) out << "  " << printable(name) << "\n";
    for (const std::string& why : answer.unchanged()) remark(context, "not " + done + ": " + why);
  }
  return answer.changed_size() == 0 && answer.unchanged_size() > 0 ? ExitCode::refused : ExitCode::ok;
}

}  // namespace assay
