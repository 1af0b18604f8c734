// `assay devices`: what the connected workers offer.
#include "cli/client.h"
#include "cli/format.h"
#include "cli/output.h"
#include "cli/table.h"
#include "cli/verb.h"

namespace assay {
namespace {

struct Options {};

Colour device_colour(const std::string& state) {
  return state == "busy" ? Colour::cyan : state == "drained" ? Colour::yellow : Colour::green;
}

Result<ExitCode> run_devices(Context& context, const Options&) {
  ASSAY_ASSIGN(Client client, Client::connect(context.home));
  ASSAY_ASSIGN(const v1::ListDevicesResponse list, client.list_devices());
  if (context.json) {
    Json devices = Json::array();
    for (const v1::Device& device : list.devices()) devices.push_back(to_json(device));
    print_json(context, {{"devices", devices}});
    return ExitCode::ok;
  }
  if (list.devices_size() == 0) {
    context.console.out << "no device: no worker is connected; see `assay doctor`\n";
    return ExitCode::ok;
  }
  Table table({{"device", Align::left, true},
               {"kind"},
               {"name", Align::left, true},
               {"memory", Align::right},
               {"state"},
               {"host", Align::left, true},
               {"worker", Align::left, true},
               {"run", Align::left, true}});
  for (const v1::Device& d : list.devices())
    table.add({d.id(), d.kind(), d.name(), format_bytes(static_cast<double>(d.memory_bytes())),
               TableCell(d.state(), device_colour(d.state())), d.host(), d.worker_id(),
               d.run().empty() ? "-" : d.run()});
  context.console.out << table.text(context.console.width, context.console.colour);
  return ExitCode::ok;
}

}  // namespace

void add_devices(CLI::App& app, Context& context) {
  CLI::App* verb = add_verb(app, "devices", "List the devices of the connected workers and what they run",
                            "  assay devices\n"
                            "  assay devices --json | jq '.devices[] | select(.state == \"free\")'");
  on_chosen(verb, context, std::make_shared<Options>(), run_devices);
}

}  // namespace assay
