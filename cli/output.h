// Messages as JSON: the documented, stable fields of --json (docs/cli.md).
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "base/gpu.h"
#include "cli/context.h"
#include "proto/queue.pb.h"
#include "spec/step_metrics.h"

namespace assay {

using Json = nlohmann::ordered_json;

// Lines on standard error, each with the program's name ahead unless it begins with a place in a file
// ("spec.toml:3:1: "), and each made safe: names and paths in it may come from anywhere.
void remark(Context& context, const std::string& text);

// One document on one line. Bytes that are not UTF-8 become U+FFFD.
void print_json(Context& context, const Json& json);

Json to_json(double number);  // null if not finite
Json to_json(const StepMetrics&);
Json to_json(const v1::Attempt&);
Json to_json(const v1::Run&);
Json to_json(const v1::Device&);
// What a GPU is doing: "1.2 GiB used, 97 % busy, 61 C, 512 W"; of null, or of what cannot be read, "-" or JSON's null.
std::string gpu_load_text(const GpuFacts*);
Json gpu_load_json(const GpuFacts*);
Json to_json(const v1::Event&);
Json to_json(const v1::ChangeResponse&);

}  // namespace assay
