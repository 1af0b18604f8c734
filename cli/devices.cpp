// `assay devices`: what the connected workers offer, and how busy the GPUs of this machine are right now.
#include <fmt/format.h>

#include <algorithm>

#include "base/gpu.h"
#include "cli/client.h"
#include "cli/format.h"
#include "cli/output.h"
#include "cli/table.h"
#include "cli/verb.h"
#include "spec/words.h"

namespace assay {
namespace {

struct Options {};

Colour device_colour(const std::string& state) {
  const auto known = find_word<DeviceState>(state);
  if (!known) return Colour::none;
  switch (*known) {
    case DeviceState::free:
      return Colour::green;
    case DeviceState::busy:
      return Colour::cyan;
    case DeviceState::drained:
      return Colour::yellow;
    case DeviceState::offline:
      break;
  }
  return Colour::dim;
}

// The driver is asked here and now: only for GPUs of this machine, others' are null.
const GpuFacts* facts_of(const v1::Device& device, const GpuInventory& here) {
  const auto it =
      std::find_if(here.gpus.begin(), here.gpus.end(), [&](const GpuFacts& g) { return g.uuid == device.id(); });
  return it == here.gpus.end() ? nullptr : &*it;
}

Result<ExitCode> run_devices(Context& context, const Options&) {
  ASSAY_ASSIGN(Client client, Client::connect(context.home));
  ASSAY_ASSIGN(const v1::ListDevicesResponse list, client.call(&Rpc::ListDevices, {}));
  const bool any_gpu = std::any_of(list.devices().begin(), list.devices().end(), [](const v1::Device& device) {
    return device.kind() == to_string(DeviceKind::cuda);
  });
  const GpuInventory here = any_gpu ? list_gpus() : GpuInventory{};
  if (context.json) {
    Json devices = Json::array();
    for (const v1::Device& device : list.devices()) {
      devices.push_back(to_json(device));
      devices.back()["now"] = gpu_load_json(facts_of(device, here));
    }
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
               {"now", Align::left, true},
               {"state"},
               {"host", Align::left, true},
               {"worker", Align::left, true},
               {"run", Align::left, true}});
  for (const v1::Device& d : list.devices())
    table.add({d.id(), d.kind(), d.name(), format_bytes(static_cast<double>(d.memory_bytes())),
               gpu_load_text(facts_of(d, here)), TableCell(d.state(), device_colour(d.state())), d.host(),
               d.worker_id(), d.run().empty() ? "-" : d.run()});
  context.console.out << table.text(context.console.width, context.console.colour);
  for (const v1::Device& d : list.devices())
    if (d.state() == to_string(DeviceState::drained))
      context.console.out << fmt::format("{} is drained: used by {}; it gets runs again when nobody else uses it\n",
                                         printable(d.id()), printable(d.drained_by()));
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
