// `assay data …`: handed over to the program assay-data, which has the tokenizer (engine/CMakeLists.txt says why it is
// apart). It reads the same command line, so nothing is listed twice.
#include "cli/verb.h"

namespace assay {

void add_data(CLI::App& app, Context& context) {
  CLI::App* verb = app.add_subcommand("data", "Prepare training data: assay data prepare --help");
  verb->prefix_command();
  verb->set_help_flag();
  verb->final_callback([&context] {
    context.action = [&context]() -> Result<ExitCode> {
      return context.become(context.programs + "/assay-data", context.arguments);
    };
  });
}

}  // namespace assay
